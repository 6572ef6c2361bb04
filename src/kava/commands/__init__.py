"""The sub-commands of `kava`, a file each, and the flags that several of them share."""
