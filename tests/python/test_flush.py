"""FLUSH: all that is acknowledged is in every derived stream, and what it closes too."""

import json

import pytest

from millstream import run
