from deproj.clip.images import open_picture as open_picture
from deproj.encoder import TextEncoder as TextEncoder
from deproj.expression import Expression as Expression
from deproj.expression import between as between
from deproj.expression import mean as mean
from deproj.expression import parse as parse
from deproj.expression import picture as picture
from deproj.expression import text as text
from deproj.expression import vector as vector
from deproj.model import Deprojector as Deprojector
from deproj.model import load as load
from deproj.pipeline import DeprojectorPipeline as DeprojectorPipeline
from deproj.process.errors import UserError as UserError
from deproj.runs.folder import RunFolder as RunFolder

__version__: str
_MODULES: dict[str, str]
