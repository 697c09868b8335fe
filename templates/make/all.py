#!/usr/bin/env python3
"""Writes project.json and template.json of every template: `python3 templates/make/all.py`. Same input, same bytes."""

from lower_third import lower_third
from promo import promo
from story import story

if __name__ == "__main__":
    for template in (promo, lower_third, story):
        template().write()
