"""Starting suites from OpenAPI documents."""
