"""Evidence: what a run left behind, in the working tree or at any commit.

- `chain`: whether every record follows from its content and from its parents'; pure.
- `history`: the evidence in the working tree, at a git revision, or of a release.
- `lineage`: the evidence of one commit as values: `reports/lineage` read and written; pure.
- `scored`: what `score` and `grade` left under `artifacts/`, read back.
"""
