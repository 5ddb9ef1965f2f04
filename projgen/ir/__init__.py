"""The intermediate representation: types, graph, verifier, printer and the interpreter that gives it meaning."""
