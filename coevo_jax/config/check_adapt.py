"""What is wrong with an evaluation whose agent adapts to the tasks that it is tested on."""

from collections.abc import Iterator

from coevo_jax.config.options import Config
from coevo_jax.config.recipe_queries import evaluations_of


def check_adapt(config: Config) -> Iterator[str]:
    """Every fault of an adapting evaluation, each in one sentence that says where it is."""
    for one in evaluations_of(config.recipe):
        if one.adapt is None:
            continue
        where = f"recipe.evaluate_{one.label}.adapt"
        if one.label == one.agent:
            yield (
                f"{where}: its numbers use test feedback, and runs are compared by the evaluation that is "
                f"called as its agent, {one.agent}; expected another name, such as name: adapted"
            )
        if not (one.adapt.learning_rate_queried or one.adapt.learning_rate_predicted):
            yield f"{where}: both learning rates are 0, so it learns nothing; leave it out"
