"""Numbers and pictures of one model; `attnfd.results(dataset)` is its function of the same name."""
