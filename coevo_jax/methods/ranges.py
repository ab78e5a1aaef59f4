"""Types of builders' options that are numbers of a range: a recipe with another number is refused."""

from typing import Annotated

from pydantic import Field

Count = Annotated[int, Field(ge=1)]
Turn = Annotated[int, Field(ge=0)]
Gap = Annotated[float, Field(ge=0)]
Reward = Annotated[float, Field(gt=0, le=1)]
Share = Annotated[float, Field(ge=0, le=1)]
