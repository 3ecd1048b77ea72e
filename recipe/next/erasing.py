"""Take out of the visual tokens where in their crop they are, so that places live in the order of tokens alone.

The tower's patches know their place, since the first checkpoint was taught so. The part of the projected tokens that
is correlated with their own place is projected out: the least change that leaves none (LEACE, Belrose et al. 2023,
arXiv:2306.03819), with places as waves over the crop, for things and for background apart, and within what a patch
shows. It is a change of the projector's last layer alone.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from recipe.dataset import GROUND, SKY
from recipe.drawing import GRID
from recipe.names import CLASSES
from recipe.next.dataset import PICTURES, open_store, see
from recipe.next.mosaic import mosaic_of
from recipe.vision_losses import PATCHES
from recipe.vision_training import Eyes, load_eyes

ALONG, DOWN, BOTH = 4, 8, 4  # waves along x, along y, and of those along both together
ALIKE = 0.4  # of a token's length, what all tokens have alike
NEGLIGIBLE = 1e-4  # of the greatest correlation


def waves() -> Tensor:
    """Cosine waves over the patches of a crop, (PATCHES, waves)."""
    axis = (torch.arange(GRID) + 0.5) / GRID
    along, down = axis.repeat(GRID), axis.repeat_interleave(GRID)
    made = [
        torch.cos(torch.pi * i * along) * torch.cos(torch.pi * j * down)
        for i in range(ALONG + 1)
        for j in range(DOWN + 1)
        if i + j > 0 and (i == 0 or j == 0 or i + j <= BOTH)
    ]
    return torch.stack(made, dim=1)


def shown(owners: Tensor, classes: Tensor) -> Tensor:
    """What each patch (n, PATCHES) shows: the class of its thing, or one of two further numbers for sky and ground.

    classes: of every thing of the picture that each crop is of, (n, things).
    """
    own = classes.gather(1, owners.clamp(max=classes.shape[1] - 1))
    return torch.where(owners < SKY, own, len(CLASSES) + (owners == GROUND).long())


def placeless(tokens: Tensor, kinds: Tensor) -> tuple[Tensor, Tensor]:
    """Matrix (hidden, hidden) and offset (hidden,) that take places out of tokens as x @ matrix.T + offset.

    tokens: (n, PATCHES, hidden) of n crops; kinds: (n, PATCHES), what `shown` makes. Tokens and places count from the
    mean of their kind. Birds are above and signs are high in their crops: what is correlated with places between kinds
    is what a token shows, and taking it out too cost one patch of a sign in ten its name.
    """
    kind = kinds.flatten()
    place = waves().expand(len(tokens), -1, -1).flatten(0, 1).double()
    x = tokens.flatten(0, 1).double()
    mean = x.mean(0)
    x, place = _centred(x, kind), _centred(place, kind)
    is_thing = (kind < len(CLASSES))[:, None]
    place = torch.cat([place * is_thing, place * ~is_thing], dim=1)
    scale, axes = torch.linalg.eigh(x.T @ x / len(x))
    scale = scale.clamp(min=1e-6 * float(scale.max())).sqrt()
    whiten, colour = axes / scale @ axes.T, axes * scale @ axes.T
    found, sizes, _ = torch.linalg.svd(whiten @ (x.T @ place / len(x)), full_matrices=False)
    found = found[:, sizes > NEGLIGIBLE * sizes[0]]
    taken = colour @ found @ found.T @ whiten
    return (torch.eye(len(taken)) - taken).float(), (taken @ mean).float()


def _centred(values: Tensor, kind: Tensor) -> Tensor:
    """Values (n, k) less the mean of their kind (n,)."""
    one = functional.one_hot(kind, len(CLASSES) + 2).to(values.dtype)
    return values - one @ (one.T @ values / one.sum(0).clamp(min=1)[:, None])


def constant(tokens: Tensor, words: Tensor) -> Tensor:
    """Direction (hidden,) that no word has a part in, and in which tokens (n, hidden) differ the least."""
    free = torch.linalg.svd(words, full_matrices=True)[2][len(words) :]
    varying = (tokens - tokens.mean(0)) @ free.T
    least: Tensor = torch.linalg.eigh(varying.T @ varying)[1][:, 0] @ free
    return least


@torch.no_grad()
def erase(eyes: Eyes, tokens: Tensor, kinds: Tensor) -> None:
    """Take places out of the projector, by tokens that it makes now, and scale them to a mean square of one.

    Every token gets the same small part of a direction that means nothing: Llama's queries have no bias, and a patch
    that looks for the newline before it, whatever it shows, needs something that all patches have. No order by
    similarity to a word changes.
    """
    if tokens.shape[1] != PATCHES:
        raise ValueError(f"whole crops have {PATCHES} patches, these have {tokens.shape[1]}")
    matrix, offset = placeless(tokens, kinds)
    rest = (tokens @ matrix.T + offset).flatten(0, 1)
    size = rest.square().mean().sqrt()
    offset = offset + constant(rest, eyes.words) * (ALIKE * size * len(offset) ** 0.5)
    size = size * (1 + ALIKE**2) ** 0.5
    last = eyes.projector.linear_2
    last.weight.copy_(matrix @ last.weight / size)
    last.bias.copy_((matrix @ last.bias + offset) / size)


def erase_places(folder: Path, count: int) -> Eyes:
    """Read `folder/vision.pt` and take places out of it, by the crops of the first `count` pictures."""
    eyes, store = load_eyes(folder / "vision.pt").eval(), open_store(folder / PICTURES, count)
    tokens, kinds = [], []
    for index in range(count):
        crops = mosaic_of(*(int(side) for side in store.size[index])).crops
        tokens.append(see(eyes, store.pixels[index, :crops]))
        owners = torch.from_numpy(store.owners[index, : crops * PATCHES].astype(int)).view(crops, PATCHES)
        classes = torch.from_numpy(store.things[index, :, 0].astype(int)).expand(crops, -1)
        kinds.append(shown(owners, classes))
    erase(eyes, torch.cat(tokens), torch.cat(kinds))
    return eyes
