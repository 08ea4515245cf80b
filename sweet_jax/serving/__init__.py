"""Using a trained model: the classifier, its model folder, predictions over files."""
