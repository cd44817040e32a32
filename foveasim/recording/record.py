"""Records what the window would show, without one: MP4, GIF or PNG frames, and the scanpaths as CSV."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, fields, replace
from pathlib import Path

from foveasim import validation
from foveasim.agents.builtin.human import Human
from foveasim.agents.interface import agent_name
from foveasim.agents.loading import make_agent
from foveasim.drawing.movie import Movie, check_frames, open_movie
from foveasim.drawing.render import render
from foveasim.errors import FoveasimError, InvalidTypeError, InvalidValueError
from foveasim.recording.episode import SESSION, Episode, as_json, read_episode
from foveasim.recording.replay import play, record_agent
from foveasim.runs.interrupts import InterruptFlag
from foveasim.runs.outputs import Inputs, check_outputs, choose_final_path, episode_beside, find_free_names
from foveasim.scanpath.scanpath import Scanpath, write_scanpaths
from foveasim.viewer.compile_kernels import compile_kernels
from foveasim.viewer.config import LookConfig
from foveasim.viewer.session import Session

__all__ = ["RecordConfig", "record", "record_frames"]


@dataclass
class RecordConfig(LookConfig):
    """What to record, and where to.

    Attributes:
        out: The file: .mp4, .gif, or a name without an ending for a folder of PNG frames. null records foveasim.mp4, or
            foveasim-2.mp4 and so on where that exists.
        seconds: Length of the recording.
        fps: Pictures per second.
        scanpath: CSV file for the scanpaths; null writes none.
        episode: Whether to write beside it, as OUT.episode.json (look.mp4.episode.json), what it takes to play it
            again.
        overwrite: Replace files of these names that exist. What is read is never replaced.
        replay: An episode's file, to be played again instead: is every observation identical, to the bit?
    """

    out: str | None = None
    seconds: float = 8.0
    fps: float = 30.0
    scanpath: str | None = None
    episode: bool = True
    overwrite: bool = False
    replay: str | None = None


def record(config: RecordConfig) -> int:
    """Record a session. Time goes by frames, so the same config gives the same pictures.

    Args:
        config: What to record. Ctrl-C or SIGTERM ends the recording early, and what there is of it is kept.

    Returns:
        0; 130 after Ctrl-C or SIGTERM; of a replay 1 where it differs.

    Raises:
        FoveasimError: A name, a file or a number that cannot be used, an agent that fails, or a full disk.
    """
    if config.replay is not None:
        return _replay(config.replay)
    outs = find_free_names("foveasim.mp4") if config.out is None else [config.out]
    return record_frames(
        *(config, outs, config.seconds, config.fps),
        scanpath=config.scanpath,
        episode=config.episode,
        overwrite=config.overwrite,
    )


def _replay(path: str) -> int:
    """Play an episode's file again and say what came of it; returns 0 where it is identical, 1 where it differs."""
    from rich.console import Console
    from rich.markup import escape

    outcome = play(read_episode(path))
    Console().print(f"[bold]{path}[/bold]  {escape(str(outcome))}", highlight=False, soft_wrap=True)
    return 0 if outcome.same else 1


def record_frames(
    config: LookConfig,
    outs: Iterable[str | Path],
    seconds: float,
    fps: float,
    *,
    scanpath: str | None = None,
    episode: bool = False,
    overwrite: bool = False,
) -> int:
    """Record a session to several files at once; see :func:`record`.

    Args:
        config: Who looks at what.
        outs: Files, each of the kind that its ending names.
        seconds: Length.
        fps: Pictures per second.
        scanpath: CSV file, or None.
        episode: Whether to write beside the first of them what it takes to play it again.
        overwrite: Replace files of these names that exist.
    """
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console()
    outs = list(outs)
    if not outs or not all(isinstance(out, str | Path) and str(out) for out in outs):
        raise InvalidTypeError(f"out must name a file; got {outs!r}.")
    validation.number("seconds", seconds, 0, 3600, open_low=True)
    validation.number("fps", fps, 1, 120)
    frames = max(1, round(seconds * fps))
    size = (int(config.size[0]), int(config.size[1]))
    _check_outs([Path(out) for out in outs], config.inputs(), scanpath, episode, overwrite)
    with ExitStack() as stack:
        stop = InterruptFlag()
        stack.enter_context(stop.listening())
        compile_kernels([config.make_retina()])
        recorder = _EpisodeRecorder(config, fps) if episode else None
        session = (config if recorder is None else recorder.config).open_session(threaded=False)
        stack.callback(session.close)
        stop.graceful = True  # until now there is nothing to keep
        movies: list[Movie] = [stack.enter_context(open_movie(out, fps, size, overwrite=overwrite)) for out in outs]
        columns = (
            TextColumn("recording"),
            BarColumn(),
            TextColumn("{task.completed}/{task.total}"),
            TimeRemainingColumn(),
        )
        interrupted = False
        try:
            with Progress(*columns, console=console, transient=True) as progress:
                _write_frames(session, movies, fps, size, progress.track(range(frames)), stop)
        except KeyboardInterrupt:
            interrupted = True
        interrupted = interrupted or stop.requested
        stop.finishing = True
        for movie in movies:
            path = movie.close()
            if path is not None:
                console.print(
                    f"[bold]{path}[/bold]  {movie.frames / fps:.1f} s, {_describe_amount(path)}", highlight=False
                )
        if scanpath is not None:
            table = write_scanpaths(
                choose_final_path(Path(scanpath), overwrite=overwrite), _number_repeats(session.scanpaths())
            )
            console.print(f"[bold]{table}[/bold]", highlight=False)
        if recorder is not None and recorder.agent.steps:
            beside = choose_final_path(episode_beside(movies[0].path), overwrite=overwrite)
            recorder.episode(movies[0].frames).write(beside)
            console.print(f"[bold]{beside}[/bold]", highlight=False)
        if interrupted:
            console.print("interrupted; what was recorded until then is saved")
    return 130 if interrupted else 0


class _EpisodeRecorder:
    """Notes what a session's agent sees and does.

    Raises:
        FoveasimError: The agent cannot be used, or the config holds something else than plain values.
    """

    def __init__(self, config: LookConfig, fps: float) -> None:
        agent = make_agent(config.agent, seed=config.seed, **config.agent_arguments)
        by_name = isinstance(config.agent, str) and not config.agent_arguments
        self.agent = record_agent(agent, config.agent if by_name else agent_name(agent))
        plain = {one.name: getattr(config, one.name) for one in fields(LookConfig)}
        self._made = {"config": {**plain, "agent": self.agent.name}, "fps": float(fps)}
        self._made |= {"action_mode": self.agent.action_mode, "grid": self.agent.grid, "size": self.agent.size}
        try:
            as_json(self._made)
        except InvalidValueError as error:
            raise InvalidValueError(f"{error} Or record without an episode: episode=False.") from error
        self.config = LookConfig(**plain)
        if not isinstance(agent, Human):  # a session asks whether it is one
            self.config.agent, self.config.agent_arguments = self.agent, {}  # type: ignore[assignment]

    def episode(self, frames: int) -> Episode:
        """Return what was noted in some frames."""
        return Episode(SESSION, {**self._made, "frames": frames}, tuple(self.agent.steps))


def _check_outs(outs: Sequence[Path], inputs: Inputs, scanpath: str | None, episode: bool, overwrite: bool) -> None:
    """Refuse files that could not be written at the end of a recording, that exist, or that are read.

    Raises:
        InvalidValueError: See above, or two of them are one.
    """
    named: dict[str, str | Path | None] = {"scanpath": scanpath}
    for out in outs:
        if out.suffix or not out.name:
            named[f"out ({out.suffix})" if len(outs) > 1 else "out"] = out
        else:
            check_frames(out, inputs, overwrite=overwrite)
    if episode and outs[0].name:
        named["the episode, OUT.episode.json,"] = episode_beside(outs[0])
    check_outputs(named, inputs, overwrite=overwrite)


def _write_frames(
    session: Session,
    movies: list[Movie],
    fps: float,
    size: tuple[int, int],
    counter: Iterable[int],
    stop: InterruptFlag,
) -> None:
    for _ in counter:
        if stop.requested:
            return
        if session.alert:
            raise FoveasimError(session.alert)
        picture = render(session.current_view(), size)
        for movie in movies:
            movie.add(picture)
        session.advance(1000 / fps)


def _number_repeats(scanpaths: Sequence[Scanpath]) -> list[Scanpath]:
    """Number the scanpaths of one subject on one image, so that they differ: a reader goes by image and subject."""
    counts: dict[tuple[str, str], int] = {}
    named = []
    for path in scanpaths:
        key = (path.image, path.subject)
        counts[key] = counts.get(key, 0) + 1
        subject = path.subject if counts[key] == 1 else f"{path.subject} {counts[key]}"
        named.append(replace(path, subject=subject))
    return named


def _describe_amount(path: Path) -> str:
    """Say how large a file is, or how many files a folder holds."""
    if path.is_dir():
        return f"{sum(1 for _ in path.iterdir())} frames"
    return f"{path.stat().st_size / 1e6:.1f} MB"
