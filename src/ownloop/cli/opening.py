"""From words on a command line to an App: `module:app`, `file.py`, or a store's URL alone."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import traceback
from pathlib import Path
from types import ModuleType
from typing import TypeVar

from ..app import App
from ..errors import OwnloopError
from ..stores.urls import open_store
from .trouble import INSTALL, Code, Trouble, usage

T = TypeVar("T")


def find_app(where: str) -> App:
    """The App at `module:app`, `module`, `file.py:app` or `file.py`; without a name the only one of the module.

    Raises:
        Trouble: there is no such file, module or App, or importing it failed.
    """
    place, _, name = where.partition(":") if not _is_file(where) else (where, "", "")
    if not name and ":" in where and not _is_file(where):
        raise usage(f"{where!r} ends with a colon; write module:app or file.py:app")
    try:
        module = _from_file(Path(place)) if place.endswith(".py") else _from_name(place)
    except Trouble:
        raise
    except Exception as error:
        if isinstance(error, ImportError) and INSTALL in str(error):  # one of our extras
            raise
        raise _failed(where, error) from error
    return _named(module, name, where) if name else _only(module, where)


def _failed(where: str, error: Exception) -> Trouble:
    """What a program raised while it was imported: where it was, what it said, and how to see all of it."""
    own = traceback.extract_tb(error.__traceback__)
    frames = [one for one in own if "site-packages" not in one.filename and not one.filename.startswith(("<", str(Path(__file__).parent.parent)))]
    place = f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames and not isinstance(error, SyntaxError) else ""
    text = str(error) if isinstance(error, OwnloopError) else f"{type(error).__name__}: {error}"
    if isinstance(error, KeyError) and frames and "environ" in (frames[-1].line or ""):
        text = f"the environment has no {error.args[0]}; set it, or write it into .env here"
    return Trouble(Code.FAILURE, f"{where} cannot be imported{place}: {text}", kind="not-importable")


def _is_file(where: str) -> bool:
    return where.endswith(".py") and Path(where).is_file()


def _from_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise usage(f"no file {path} here ({Path.cwd()}); name an existing one: --app path/to/agent.py")
    folder, name = str(path.resolve().parent), path.stem
    if folder not in sys.path:
        sys.path.insert(0, folder)
    if name in sys.modules or name in sys.stdlib_module_names:
        name = f"{name}_app"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise usage(f"{path} cannot be loaded as Python")
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _from_name(name: str) -> ModuleType:
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.insert(0, here)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(error.name + ".")):
            raise usage(f"no module {name!r} on the path or in {here}; write module:app or path/to/file.py:app") from None
        raise


def _named(module: ModuleType, name: str, where: str) -> App:
    found = getattr(module, name, None)
    if not isinstance(found, App):
        what = f"a {type(found).__name__}" if found is not None else "nothing"
        apps = ", ".join(_apps(module)) or "none"
        raise usage(f"{where}: {name} is {what}, and an App is needed; Apps there: {apps}")
    return found


def _only(module: ModuleType, where: str) -> App:
    apps = _apps(module)
    if len({id(app) for app in apps.values()}) == 1:
        return next(iter(apps.values()))
    if not apps:
        raise usage(f"{where} has no App; make one at its top level: app = App('sqlite:///agents.db')")
    raise usage(f"{where} has several Apps ({', '.join(apps)}); say which: --app {where}:{next(iter(apps))}")


def _apps(module: ModuleType) -> dict[str, App]:
    return {name: value for name, value in vars(module).items() if isinstance(value, App)}


def move(app: App, url: str) -> None:
    """Let an App that is not open work on another store: what the operator says wins over what the program says."""
    if url != app.store.url:
        app.store = open_store(url, None)
        app._outbox._store = app._board._store = app.store
        if getattr(app._engine, "_store", None) is not None:
            app._engine = None  # the App made it for the store that it had


def companion(app: App, kind: type[T]) -> T | None:
    """What of this kind stands beside the App at the top level of its module: `hooks = Hooks()`, `webhooks = Webhooks(app, …)`."""
    for module in list(sys.modules.values()):
        names = list(getattr(module, "__dict__", {}).values())
        if any(value is app for value in names):
            found = next((value for value in names if isinstance(value, kind)), None)
            if found is not None:
                return found
    return None
