"""Environments that each break one rule, by the conformance check that must find it, and only it."""

import subprocess
import tempfile
import threading
import time
from dataclasses import replace

from coevo_jax.envs.env import StepResult, Task
from coevo_jax.trajectory import Turn
from tests.letters_env import LettersEnv, LettersOptions


class Base(LettersEnv):
    """The toy environment, sound; episodes know their turn and whether they are over."""

    def __init__(self):
        super().__init__(LettersOptions())
        self._turn, self._over = 0, True

    def reset(self, task):
        self._turn, self._over = 0, False
        return super().reset(task)

    def step(self, action):
        self._turn += 1
        result = super().step(action)
        self._over = result.done
        return result


class NoName(Base):
    name = " "


class NoLimit(Base):
    reward_at_limit = None


class TextFlag(Base):
    deterministic = "yes"


class OtherSplit(Base):
    def tasks(self, split):
        return [replace(task, split="training") for task in super().tasks(split)]


class NoTrain(Base):
    def tasks(self, split):
        return [] if split == "train" else super().tasks(split)


class OwnOrder(Base):
    made = 0

    def __init__(self):
        super().__init__()
        OwnOrder.made += 1
        self._shift = OwnOrder.made

    def tasks(self, split):
        tasks = super().tasks(split)
        return tasks[self._shift % 7 :] + tasks[: self._shift % 7]


class TwiceTheSame(Base):
    def tasks(self, split):
        return [super().tasks(split)[0], *super().tasks(split)]


class Overlapping(Base):
    def tasks(self, split):
        seen = [Task(id="train/3", split="dev", family="copy")]
        return super().tasks(split) + (seen if split == "dev" else [])


class NoTurns(Base):
    def max_turns(self, task):
        return 4 if task.split == "train" else 0


class Silent(Base):
    def reset(self, task):
        super().reset(task)
        return ""


class CountsItsResets(Base):
    resets = 0

    def reset(self, task):
        self.resets += 1
        return f"{super().reset(task)} ({self.resets})"


class BareTuple(Base):
    def step(self, action):
        result = super().step(action)
        return result.observation, result.done, result.reward


class TextReward(Base):
    def step(self, action):
        result = super().step(action)
        return replace(result, reward=str(result.reward))


class Bonus(Base):
    def step(self, action):
        result = super().step(action)
        return replace(result, reward=1.5) if len(action) > 12 and result.done else result


class NotANumber(Base):
    def step(self, action):
        result = super().step(action)
        return replace(result, reward=float("nan")) if "[" in action and result.done else result


class NegativeAtLimit(Base):
    def reward_at_limit(self):
        return -0.5


class TiresAfterThree(Base):
    def step(self, action):
        if self._turn == 3:
            raise IndexError("no fourth turn")
        return super().step(action)


class Moody(Base):
    made = 0

    def __init__(self):
        super().__init__()
        Moody.made += 1
        self._mood = Moody.made % 2

    def step(self, action):
        result = super().step(action)
        return replace(result, reward=result.reward / 2) if self._mood and result.reward < 1 else result


class Talkative(Base):
    def step(self, action):
        result = super().step(action)
        return replace(result, observation=str(id(self))) if result.done and result.reward < 1 else result


class Restores(Base):
    """Sound, and its states can be kept."""

    def snapshot(self):
        return self._turn, self._over

    def restore(self, task, state):
        self._word, (self._turn, self._over) = self._words[task.id], state


class NewSecretAtEveryReset(Base):
    """What it has to be guessed is another word after every reset; only a guess in brackets tells."""

    resets = 0

    def reset(self, task):
        super().reset(task)
        NewSecretAtEveryReset.resets += 1
        self._secret = str(self.resets % 10)
        return 'Guess a digit, as in "[7]".'

    def step(self, action):
        self._turn += 1
        if not (action.startswith("[") and action[1:-1].isdigit()):
            return StepResult(observation="Invalid action: expected [digit].", done=False, reward=0.0)
        near = "higher" if action[1:-1] < self._secret else "lower or right"
        return StepResult(observation=near, done=False, reward=0.0)

    def expert(self, task):
        return None


class ForgetsItsTask(Restores):
    def restore(self, task, state):
        self._turn, self._over = state


class KeepsNothing(Restores):
    def snapshot(self):
        return None


class KeepsItself(Restores):
    def snapshot(self):
        return lambda: self


class WrongExpert(Base):
    def expert(self, task):
        shown = super().expert(task)
        wrong = "d" + shown.turns[1].action[1:]
        return replace(
            shown, turns=(shown.turns[0], Turn(response=f"Action: {wrong}", action=wrong, observation=""))
        )


class LongExpert(Base):
    def expert(self, task):
        shown = super().expert(task)
        return replace(shown, turns=(shown.turns[0],) * 4 + shown.turns[1:])


class SpeechlessExpert(Base):
    def expert(self, task):
        shown = super().expert(task)
        return replace(shown, turns=tuple(replace(turn, response=turn.action) for turn in shown.turns))


class ForgetfulExpert(Base):
    def expert(self, task):
        shown = super().expert(task)
        return replace(shown, turns=(replace(shown.turns[0], observation="?"), shown.turns[1]))


class OpenEnded(Base):
    def expert(self, task):
        shown = super().expert(task)
        return replace(shown, turns=shown.turns[:1])


class CountsErrors(Base):
    def is_error(self, observation):
        return observation.count("Invalid action")


class NeverContent(Base):
    def is_error(self, observation):
        return True


class KnowsErrorsOfItsEpisode(Base):
    word = None

    def reset(self, task):
        first = super().reset(task)
        self.word = self._word
        return first

    def is_error(self, observation):
        return len(self.word) < len(observation) < 4


class FearsNoise(Base):
    def step(self, action):
        if "\x00" in action:
            raise ValueError("embedded null character")
        return super().step(action)


class Echo(Base):
    def step(self, action):
        result = super().step(action)
        wrong = result.done and result.reward < 1
        return replace(result, observation=f"You said {action}") if wrong else result


class RemembersBrokenEpisodes(Base):
    looked = 0

    def step(self, action):
        over, result = self._over, super().step(action)
        if over:
            return result
        self.looked += action == "look"
        if result.done:
            result = replace(result, reward=result.reward / self.looked if self.looked else 0.0)
            self.looked = 0
        return result


class CanBeWrittenTo(Base):
    dropped = False

    def step(self, action):
        self.dropped = self.dropped or "DROP TABLE" in action
        result = super().step(action)
        return replace(result, reward=result.reward / 2) if self.dropped else result


class SolvedBeforeItBegan(Base):
    def step(self, action):
        if not hasattr(self, "_word"):
            return StepResult(observation="", done=True, reward=1.0)
        return super().step(action)


class NothingAfterTheEnd(Base):
    def step(self, action):
        return None if self._over else super().step(action)


class ClosesOnce(Base):
    closed = False

    def close(self):
        if self.closed:
            raise RuntimeError("already closed")
        self.closed = True


class HangsWhenClosed(ClosesOnce):
    def close(self):
        self.closed = True

    def reset(self, task):
        if self.closed:
            time.sleep(5.0)
        return super().reset(task)


class NothingWhenClosed(HangsWhenClosed):
    def reset(self, task):
        return None if self.closed else Base.reset(self, task)


class OneForAll(Base):
    """Closing an instance takes down what all of those made before it play on."""

    generation = 0

    def __init__(self):
        super().__init__()
        self._generation = OneForAll.generation

    def step(self, action):
        if self._generation != OneForAll.generation:
            raise RuntimeError("the server is gone")
        return super().step(action)

    def close(self):
        OneForAll.generation += 1


class OneWord(Base):
    """All instances play the task that was reset last."""

    last = None

    def reset(self, task):
        OneWord.last = task
        return super().reset(task)

    def step(self, action):
        self._word = self._word and self._words[OneWord.last.id]
        return super().step(action)


class BoundToItsThread(Base):
    def __init__(self):
        super().__init__()
        self._thread = threading.get_ident()

    def step(self, action):
        if threading.get_ident() != self._thread:
            raise RuntimeError("made in another thread")
        return super().step(action)


class OneAtATime(Base):
    """Its port is taken while an instance is closing, which takes a while."""

    closing = 0

    def __init__(self):
        super().__init__()
        if OneAtATime.closing:
            raise OSError("address already in use")

    def close(self):
        OneAtATime.closing += 1
        time.sleep(0.1)
        OneAtATime.closing -= 1


class Leaky(Base):
    """Takes something that it never gives back."""

    kept: list = []  # noqa: RUF012

    def __init__(self):
        super().__init__()
        self.kept.append(self._take())

    def _take(self):
        raise NotImplementedError


class LeaksThreads(Leaky):
    released = threading.Event()

    def _take(self):
        thread = threading.Thread(target=self.released.wait, args=(60,), daemon=True)
        thread.start()
        return thread


class LeaksFiles(Leaky):
    def _take(self):
        return open("/dev/null")


class LeaksTemporaryFiles(Leaky):
    def _take(self):
        return tempfile.mkdtemp(prefix="left-behind-")


class LeaksProcesses(Leaky):
    def _take(self):
        return subprocess.Popen(["sleep", "60"])


class OneProcess(Base):
    """All instances share a process that nobody starts again."""

    process: subprocess.Popen | None = None

    def __init__(self):
        super().__init__()
        OneProcess.process = OneProcess.process or subprocess.Popen(["sleep", "60"])

    def reset(self, task):
        if OneProcess.process.poll() is not None:
            raise RuntimeError("the process is gone")
        return super().reset(task)


class NotDeterministic(Base):
    """Sound: it says that observations differ, and they do."""

    deterministic = False
    resets = 0

    def reset(self, task):
        NotDeterministic.resets += 1
        return f"{super().reset(task)} {NotDeterministic.resets}"


class NoExperts(Base):
    """Sound: nobody has solved its tasks."""

    def expert(self, task):
        return None


class Mortal(Base):
    """Sound: a process of its own per instance, started anew after a fault."""

    def __init__(self):
        super().__init__()
        self.process = subprocess.Popen(["sleep", "60"])

    def step(self, action):
        if self.process.poll() is not None:
            raise RuntimeError("the process is gone")
        return super().step(action)

    def close(self):
        self.process.kill()
        self.process.wait()


class _Singleton(Base):
    pass


ONLY = _Singleton()


def the_only_one():
    return ONLY


BROKEN = {
    "protocol": (NoName, NoLimit, TextFlag, the_only_one),
    "task_lists": (OtherSplit, NoTrain),
    "task_ids": (TwiceTheSame,),
    "disjoint_splits": (Overlapping,),
    "max_turns": (NoTurns,),
    "first_observation": (Silent, CountsItsResets),
    "step_result": (BareTuple, TextReward),
    "task_order": (OwnOrder,),
    "rewards": (Bonus, NotANumber),
    "reward_at_limit": (NegativeAtLimit,),
    "endings": (TiresAfterThree,),
    "same_actions": (Moody, Talkative),
    "same_task": (NewSecretAtEveryReset,),
    "restored_states": (ForgetsItsTask, KeepsNothing, KeepsItself),
    "experts": (WrongExpert, LongExpert, SpeechlessExpert, ForgetfulExpert, OpenEnded),
    "errors": (CountsErrors, NeverContent, KnowsErrorsOfItsEpisode),
    "malformed_actions": (FearsNoise,),
    "answer_length": (Echo,),
    "reset_in_mid_episode": (RemembersBrokenEpisodes,),
    "next_episode_unharmed": (CanBeWrittenTo,),
    "step_outside_episode": (SolvedBeforeItBegan, NothingAfterTheEnd),
    "close_twice": (ClosesOnce,),
    "use_after_close": (HangsWhenClosed, NothingWhenClosed),
    "close_is_local": (OneForAll,),
    "side_by_side": (OneWord,),
    "any_thread": (BoundToItsThread,),
    "faults": (OneAtATime,),
    "leaks": (LeaksThreads, LeaksFiles, LeaksTemporaryFiles, LeaksProcesses),
    "killed_process": (OneProcess,),
}


def clean_up():
    """Give back what the leaky ones took."""
    LeaksThreads.released.set()
    for kept in Leaky.kept:
        if isinstance(kept, subprocess.Popen):
            kept.kill()
            kept.wait()
        elif isinstance(kept, threading.Thread):
            kept.join()
        elif hasattr(kept, "close"):
            kept.close()
    Leaky.kept.clear()
    if OneProcess.process is not None:
        OneProcess.process.kill()
        OneProcess.process.wait()
        OneProcess.process = None
