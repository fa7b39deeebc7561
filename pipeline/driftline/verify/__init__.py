"""Verify: is everything here what its record says, from the evidence in git to a remote?

What was recorded is listed (`expected`), what lies here is looked at (`survey`), the two are
compared once (`workspace`), and every difference is told with the command that mends it.

- `audit`: `driftline verify` as a whole, from the evidence in git to the last remedy.
- `expected`: what has to be in the working tree, as rows made of the records; pure.
- `hashes`: sha256 and md5 of a file in one read, each file once.
- `lock`: `dvc.lock` as values: which stage made and which read what.
- `locked`: `dvc.lock` held against the working tree, the evidence and itself.
- `objects`: DVC's cache and remotes, object by object.
- `parts`: which tensors or fields of an artifact or a record are others.
- `problems`: what is told in the end: a place, an object, who made it, what restores it.
- `remedies`: the cheapest command that really restores an object.
- `sealed`: what carries its own seal: manifests, controls, counterfactuals.
- `survey`: what lies in the working tree: names and sizes always, bytes on request.
- `workspace`: the one comparison of what is expected with what is here, and what read what.
"""
