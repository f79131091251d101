"""One short file a peer, driven as its own documentation recommends for the job."""
