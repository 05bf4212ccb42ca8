"""What happens to a large simulated network, and what it is measured by."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from math import gamma
from random import Random

from re6st.core.routing.babel_settings import update_interval
from re6st.sim import places
from re6st.sim.hosts import Host
from re6st.sim.measures import control_traffic, is_whole, reached, shape
from re6st.sim.world import NOTICED_MAX, STEP, World

Say = Callable[[str], None]
START_TIME = 60.0
"""Seconds within which all start."""
LONGEST = 600.0
"""Seconds that a network may take to form, or to be whole again."""
QUIET = 60.0
"""Seconds in which it is looked at how much nodes have to say when nothing happens."""
SHAPE, SCALE = 0.38, 42.4 * 60
"""Of the Weibull distribution of how long a machine stays, in seconds: sessions of BitTorrent users, as Stutzbach and
Rejaie fitted them ("Understanding churn in peer-to-peer networks", IMC 2006). Servers stay longer."""
AWAY = 600.0
"""Seconds that a machine which left is away in the mean."""


@dataclass
class Story:
    """What a scene has shown: times in seconds, and figures by name."""

    figures: dict[str, float] = field(default_factory=dict)
    by_time: list[tuple[float, float]] = field(default_factory=list)
    """The part of pairs that reach each other, by the seconds since what happened."""


class Stage:
    """A world, what is said while it goes on, and what is noted."""

    def __init__(self, world: World, say: Say) -> None:
        self.world = world
        self.say = say
        self.story = Story()

    def heal(self, name: str, longest: float = LONGEST, blind: float = 0.0) -> None:
        """Wait until every node reaches every other one; note how long it took, also for 99% of the pairs.

        It begins `blind` seconds ago, in which nobody knew yet what had happened.
        """
        world = self.world
        began = world.now - blind
        self.story.by_time = []
        most: float | None = None

        def look() -> bool:
            nonlocal most
            part, passed = reached(world), world.now - began
            self.story.by_time.append((round(passed, 1), round(part, 6)))
            if part >= 0.99 and most is None:
                most = passed
            elif part < 0.99:
                most = None
            if len(self.story.by_time) % 10 == 0:
                self.say(f"{name}: {passed:.0f} s, {100 * part:.2f}% of all pairs, {world.calls} calls")
            return is_whole(world)

        took = world.run(longest, look) + blind
        whole = is_whole(world)
        self.note(f"{name}: 99% of pairs, s", most if most is not None else float("inf"))
        self.note(f"{name}: all pairs, s", took if whole else float("inf"))

    def note(self, name: str, figure: float) -> None:
        self.story.figures[name] = figure
        self.say(f"{name}: {figure:.3f}".rstrip("0").rstrip("."))

    def measure(self, name: str, targets: int = 24, sources: int = 100) -> None:
        """Note how the network is."""
        found = shape(self.world, Random(self.world.plan.seed), targets, sources)  # noqa: S311
        for key, value in asdict(found).items():
            self.note(f"{name}: {key.replace('_', ' ')}", value)
        every = update_interval(round(found.routes))
        self.note(
            f"{name}: babel's updates, bytes/s a node, every {every:.0f} s (computed)",
            control_traffic(found.routes, found.links, every),
        )


def form(stage: Stage) -> None:
    """Every machine starts within a minute; the registry's is there."""
    world = stage.world
    world.start(world.machines[0])
    for machine in world.machines[1:]:
        world.later(0, START_TIME, lambda machine=machine: world.start(machine))  # type: ignore[misc]
    world.run(START_TIME, lambda: _progress(stage))
    stage.note("start: pairs when the last one starts, %", 100 * reached(world))
    stage.heal("start, after the last one")
    stage.note("start: calls to the registry a node", world.calls / len(world.machines))
    stage.note("start: tunnels turned away a node", world.counts["tunnels turned away"] / len(world.machines))
    before = world.counts["messages"], world.now
    world.run(QUIET)
    messages, seconds = world.counts["messages"] - before[0], world.now - before[1]
    stage.note("start: messages a node and second, then", messages / seconds / len(world.machines))
    stage.measure("start")


def _progress(stage: Stage) -> bool:
    world = stage.world
    if int(world.now) % 10 == 0:
        stage.say(f"start: {len(world.running())} run, {100 * reached(world):.2f}% of pairs, {world.calls} calls")
    return False


def deaths(stage: Stage) -> None:
    """A third less a tenth of a third, 30%, die at one moment without a word; the registry's node is spared."""
    world = stage.world
    calls, alive = world.calls, world.running()[1:]
    for machine in world.rng.sample(alive, round(0.3 * len(alive))):
        world.kill(machine)
    blind = NOTICED_MAX + STEP  # until then routes lead over the dead, and it is not known who is reached
    world.run(blind)
    stage.heal("30% dead", blind=blind)
    stage.note("30% dead: calls to the registry a node", (world.calls - calls) / len(world.running()))
    world.run(QUIET)
    stage.measure("30% dead, a minute later")


def cut(stage: Stage) -> None:
    """A continent is cut off for an hour, and comes back."""
    world = stage.world
    lands = [machine.place.land for machine in world.machines]
    home = world.machines[0].place.land
    gone = max({*lands} - {home}, key=lands.count)
    world.block(lambda one, other: (one.place.land == gone) != (other.place.land == gone))
    world.run(3600, lambda: _report(stage, "cut"))
    stage.note("cut: pairs that reach each other after the hour, %", 100 * reached(world))
    world.block(None)
    calls = world.calls
    stage.heal("back after a cut", 3 * LONGEST)
    stage.note("back after a cut: calls to the registry a node", (world.calls - calls) / len(world.machines))


def registry(stage: Stage) -> None:
    """The registry is away for two hours, while machines come and go."""
    stage.world.registry_answers = False
    _churn(stage, 7200, "without a registry")
    stage.world.registry_answers = True
    stage.heal("the registry is back")


def churn(stage: Stage) -> None:
    """Machines come and go for half an hour, as the users of a file-sharing network do."""
    _churn(stage, 1800, "coming and going")
    stage.heal("after coming and going")


def _churn(stage: Stage, seconds: float, name: str) -> None:
    world = stage.world
    until = world.now + seconds

    def leave(machine: Host) -> None:
        if machine.running and world.now < until:
            world.kill(machine)
            world.engine.after(world.rng.expovariate(1 / AWAY), lambda: come(machine))

    def come(machine: Host) -> None:
        world.start(machine)
        world.engine.after(world.rng.weibullvariate(SCALE, SHAPE), lambda: leave(machine))

    for machine in world.machines[1:]:
        # Who is seen at one moment stays long: the others have left.
        left = world.rng.weibullvariate(SCALE, SHAPE) + world.rng.uniform(0, SCALE * gamma(1 + 1 / SHAPE))
        world.engine.after(left, lambda machine=machine: leave(machine))  # type: ignore[misc]
    parts: list[float] = []

    def look() -> bool:
        parts.append(reached(world))
        return _report(stage, name)

    world.run(seconds, look)
    stage.note(f"{name}: pairs that reach each other in the mean, %", 100 * sum(parts) / len(parts))
    stage.note(f"{name}: at worst, %", 100 * min(parts))


def upgrade(stage: Stage) -> None:
    """Half of the nodes get the next daemon within a minute, which takes over their tunnels."""
    world = stage.world
    half = world.rng.sample(world.running(), len(world.machines) // 2)
    for machine in half:
        world.later(0, 60, lambda machine=machine: world.upgrade(machine))  # type: ignore[misc]
    least = [1.0]

    def look() -> bool:
        least[0] = min(least[0], reached(world))
        return False

    world.run(420, look)
    stage.note("upgrade: pairs that reach each other at worst, %", 100 * least[0])


def doubled(stage: Stage) -> None:
    """A region gets as many machines as it has."""
    world = stage.world
    region = world.machines[-1].region
    there = [machine for machine in world.machines if machine.region is region]
    for machine in there:
        more = world.add(region.prefix, machine.place, public=world.rng.random() >= world.plan.hidden)
        world.later(0, 60, lambda more=more: world.start(more))  # type: ignore[misc]
    world.run(60)
    stage.heal("a region doubled")


def crowd(stage: Stage) -> None:
    """As many machines again as a region has come within ten seconds, all behind one NAT."""
    world = stage.world
    region = world.machines[-1].region
    where = world.machines[-1].place
    for _ in [machine for machine in world.machines if machine.region is region]:
        more = world.add(region.prefix, places.Place(where.land, where.x, where.y, where.height), public=False)
        world.later(0, 10, lambda more=more: world.start(more))  # type: ignore[misc]
    calls = world.calls
    world.run(10)
    stage.heal("a crowd behind one NAT")
    stage.note("a crowd behind one NAT: calls to the registry", world.calls - calls)


def _report(stage: Stage, name: str) -> bool:
    if int(stage.world.now) % 300 == 0:
        stage.say(f"{name}: {100 * reached(stage.world):.2f}% of pairs at {stage.world.now:.0f}")
    return False


SCENES: Mapping[str, Callable[[Stage], None]] = {
    "deaths": deaths,
    "cut": cut,
    "registry": registry,
    "churn": churn,
    "upgrade": upgrade,
    "doubled": doubled,
    "crowd": crowd,
}
"""What may happen once a network has formed."""
ROOM = frozenset({"doubled", "crowd"})
"""Those in which regions grow."""
