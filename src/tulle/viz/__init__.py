"""Golden metrics: scrapes the sidecars, adds up what they count, and answers who calls whom, how often and how well.

`exposition` reads a page, `ingest` turns it into differences, `store` keeps them by workload and edge, `queries`
answers from the store and the World. Only `scraper`, `service` and `client` know sockets.
"""
