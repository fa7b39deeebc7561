"""Machines: cells that another machine made, and how they come to stand in this project.

- `imported`: whether an imported cell stands for one of this project, and where it lies.
- `take`: `driftline import-cells`: fetches cells of a commit and moves in what matches.
"""
