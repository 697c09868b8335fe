#!/usr/bin/env python3
"""Writes project.json and template.json of every template: `python3 templates/make/all.py`. Same input, same bytes."""
from promo import promo

if __name__ == "__main__":
    for template in (promo,):
        template().write()
