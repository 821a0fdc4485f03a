"""The bounds of configured numbers: one place for the charter, config.toml, model.toml and command options.

Beyond them the accountant runs out of memory or time, or the number is meaningless: an ε over 100 protects nobody.
"""

MIN_EPSILON, MAX_EPSILON = 0.01, 100.0
MIN_DELTA, MAX_DELTA = 1e-9, 0.1
MAX_ROUNDS = 10_000  # that a charter plans
MAX_STEPS = 10_000  # of one round
MAX_TOTAL_STEPS = 100_000  # of all planned rounds together: the accountant's time and error grow with them
MIN_STUDENTS = 20  # that a member's lot may stand for: fewer widen no bound of an update's norm
MIN_DEADLINE, MAX_DEADLINE = 0.1, 7 * 86_400.0  # seconds
MAX_PACE = 366 * 86_400  # seconds between two closes of a component
MAX_STUDENTS = 100_000_000  # of one institution
MAX_INSTITUTIONS = 1024  # of a federation or a simulation
MAX_WAIT = 86_400.0  # seconds that a command waits
MAX_HEIGHT = 2**63 - 1  # of the ledger; of rounds too
MAX_SEED = 2**63 - 1

NO_PRIVACY = 'Where no privacy is wanted say so: --no-dp, or privacy = "open" in a model file.'


def epsilon_problem(epsilon: float) -> str:
    """Return the problem with an ε, or ""."""
    if MIN_EPSILON <= epsilon <= MAX_EPSILON:
        return ""
    return f"ε = {epsilon:g} is not between {MIN_EPSILON:g} and {MAX_EPSILON:g}"


def delta_problem(delta: float) -> str:
    """Return the problem with a δ, or ""."""
    if MIN_DELTA <= delta < MAX_DELTA:
        return ""
    return f"δ = {delta:g} is not from {MIN_DELTA:g} to less than {MAX_DELTA:g}"


def steps_problem(rounds: int, steps: int) -> str:
    """Return the problem with these numbers of rounds and of steps a round, or ""."""
    if not 1 <= rounds <= MAX_ROUNDS:
        return f"{rounds} rounds are not between 1 and {MAX_ROUNDS:,}"
    if not 1 <= steps <= MAX_STEPS:
        return f"{steps} steps of a round are not between 1 and {MAX_STEPS:,}"
    if rounds * steps > MAX_TOTAL_STEPS:
        return f"{rounds:,} rounds of {steps:,} steps are more than the {MAX_TOTAL_STEPS:,} that can be planned"
    return ""
