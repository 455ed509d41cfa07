"""YAML of somebody's making as plain values: no key twice, no aliases, nothing that grows when it is read."""

from pathlib import Path
from typing import Any

import yaml

from stkvlm_lib.config import ConfigError
from stkvlm_lib.files import one_line


class _Strict(yaml.SafeLoader):
    """PyYAML's safe loader without aliases and merges, refusing keys that stand twice."""

    def compose_node(self, parent, index):
        event = self.peek_event()
        if isinstance(event, yaml.events.AliasEvent):
            said = f"*{event.anchor} repeats another part; write it out"
            raise yaml.composer.ComposerError(None, None, said, event.start_mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node, deep=False):
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(None, None, "a key must be a name", key.start_mark)
            if key.value in seen:
                said = f"the key {key.value!r:.60} stands twice in one mapping"
                raise yaml.constructor.ConstructorError(None, None, said, key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML file that must hold a mapping.

    Raises FileNotFoundError where there is none, ConfigError naming file and line for what is no YAML, has a key twice,
    repeats a part by an alias (`*name`, with which a few lines can stand for gigabytes), or is no mapping.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such batch file; benchmarks/batches/ has some to start from")
    try:
        value = yaml.load(path.read_text(encoding="utf-8-sig"), Loader=_Strict)
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: is no text in UTF-8; save it as such") from None
    except RecursionError:
        raise ConfigError(f"{path}: nested too deep for a batch file") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}: " if mark else ""
        raise ConfigError(f"{path}: {where}{one_line(getattr(error, 'problem', None) or error)}") from None
    except ValueError as error:  # a date that is none, a number of too many digits
        raise ConfigError(f"{path}: a value cannot be read ({one_line(error)}); put texts in quotes") from None
    if not isinstance(value, dict):
        raise ConfigError(f"{path}: holds no mapping but {value!r:.40}; begin with a line such as `profile: smoke`")
    return value
