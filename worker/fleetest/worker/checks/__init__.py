"""
Checks: REST and GraphQL tests that are written down as YAML files, collected by pytest as its cases.

`plugin` is the pytest plugin; it works wherever pytest and the extra `checks` are installed, without a cluster, too.
"""
