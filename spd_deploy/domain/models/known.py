"""All architectures that are described here, by the base model's name and by ``model_type``.

Three things recognise a model:

    names of a layer's tensors      whether it can be pruned (``domain.layers``)
    base model's name in tensors    what surrounds the layers, and so whether it can be exported
    model_type of config.json       which base model's name Transformers expects in the tensors
"""

from collections.abc import Mapping

from spd_deploy.domain.models.architecture import Architecture, Naming
from spd_deploy.domain.models.bert import BERT
from spd_deploy.domain.models.data2vec import DATA2VEC
from spd_deploy.domain.models.deberta import DEBERTA
from spd_deploy.domain.models.distilbert import DISTILBERT
from spd_deploy.domain.models.electra import ELECTRA
from spd_deploy.domain.models.ernie import ERNIE
from spd_deploy.domain.models.modernbert import MODERNBERT
from spd_deploy.domain.models.mpnet import MPNET
from spd_deploy.domain.models.roberta import ROBERTA

_ALL = (BERT, ROBERTA, DATA2VEC, ERNIE, DISTILBERT, ELECTRA, MPNET, MODERNBERT, DEBERTA)

ARCHITECTURES: Mapping[str, Architecture] = {known.base: known for known in _ALL}
# The base model's name in a classifier's tensors, by ``model_type`` of ``config.json``. These are
# the types whose classifier in Transformers reads a layer's linear modules and norms, and no more.
BASE_OF: Mapping[str, str] = {kind: known.base for known in _ALL for kind in known.model_types}
NAMINGS: tuple[Naming, ...] = tuple(dict.fromkeys(known.naming for known in _ALL))
