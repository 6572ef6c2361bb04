"""Layer maps: by depth, or by the similarity (CKA) of the layers of two models."""
