"""A curriculum: phases of training, each from the student of the last."""
