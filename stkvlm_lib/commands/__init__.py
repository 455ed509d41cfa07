"""What `./run_all.sh` and `stkvlm` can do: a command is a module here, listed once, in `command_line.LISTED`.

The module's name is the command's; the first line of its docstring stands in the help, all of it in `COMMAND --help`.
`add_arguments(parser)` says what it takes, `call(options)` does it and may return an exit status. The types of the
arguments, and after them `check(options)`, where there is one, come first and refuse what can be refused before
anything is installed: like everything that a module imports at its top, they need the standard library alone; what
they cannot do without packages is done once these are there. `EPILOG` stands at the end of a command's help; the words
of one with `PASSES_ON` are not read but handed on.

For another command: write its module, name it in `LISTED`, add a test.
"""
