"""Messages back to what they were made from, as the control plane reads them."""

from raftgrid._combine import Combine
from raftgrid._round import RoundRule
from raftgrid.optimizer import SGD, Adam, AdamW, DiLoCo, FedAdam, FedAvg, FedAvgM
from raftgrid.schedule import Constant, Cosine, StepDecay


def optimizer_of(m):
    moments = (m.learning_rate, m.beta1, m.beta2, m.epsilon)
    return {
        "sgd": lambda: SGD(m.learning_rate, m.momentum, m.nesterov, m.weight_decay),
        "adam": lambda: Adam(*moments, m.weight_decay),
        "adamw": lambda: AdamW(*moments, m.weight_decay),
        "fedavg": lambda: FedAvg(),
        "fedavgm": lambda: FedAvgM(m.learning_rate, m.momentum),
        "fedadam": lambda: FedAdam(*moments),
        "diloco": lambda: DiLoCo(m.learning_rate, m.momentum),
    }[m.algorithm]()


def schedule_of(m):
    return {
        "constant": lambda: Constant(m.warmup_rounds),
        "cosine": lambda: Cosine(m.decay_rounds, m.final_factor, m.warmup_rounds),
        "step": lambda: StepDecay(m.step_rounds, m.step_factor, m.warmup_rounds),
    }[m.kind]()


def rule_of(chunk):
    """Of the first chunk of InitModel."""
    schedule = schedule_of(chunk.optimizer.schedule) if chunk.optimizer.HasField("schedule") else None
    c = chunk.combine
    combine = Combine(c.strategy, c.trim_fraction, c.clip_norm) if chunk.HasField("combine") else None
    return RoundRule(optimizer_of(chunk.optimizer), schedule, combine)
