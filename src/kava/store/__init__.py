"""Teachers' caches on disk: whole texts and compressed targets, in shards that are read in place.

Only files and tensors stand here. `kava.extract` writes a store with a teacher, and
`kava.train.stored` lets a run read from one.
"""
