"""What is done with the outputs of exits: criteria, temperatures, the exit rule."""
