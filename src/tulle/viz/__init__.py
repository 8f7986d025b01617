"""Metrics: scrapes the proxies, keeps, answers."""
