"""Release: the evidence of one commit, frozen under a name that others can check.

- `bom`: a release as a CycloneDX bill of materials; pure.
- `cards`: Hub model cards of what a release ships; pure.
- `contents`: the evidence of a commit gathered into one record; pure.
- `make`: makes the release of HEAD, checked against HEAD.
- `signatures`: signs a release with a key of one's own, and checks a signature.
- `statements`: in-toto attestations of what the records say; pure.
"""
