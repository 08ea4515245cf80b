"""What people use: the classifier, its model folder, predictions over files."""
