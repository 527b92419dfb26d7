"""Where a live face plugs into frameworks for voice agents; each module needs its own extra.

from stillspeak.integrations.livekit import TalkingFace      # stillspeak[livekit]
from stillspeak.integrations.pipecat import TalkingFaceProcessor  # stillspeak[pipecat]
"""
