"""An error budget: which stored tensors of one hop cost how much of its drift.

- `measure`: the budget of a hop of the project, from what the stages left, and its files.
- `swapping`: a child's tensors put into its parent's model, one group at a time.
"""
