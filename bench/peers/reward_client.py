"""Scores a group of two rollouts with a running reward service, from Python: `reward_client.py HOST:PORT`.

Needs grpcio and grpcio-tools; the messages are compiled from proto/ on the fly.
"""

import pathlib
import sys
import tempfile

import grpc
from grpc_tools import protoc

PROTO = pathlib.Path(__file__).resolve().parents[2] / "proto" / "proto"


def compiled():
    out = tempfile.mkdtemp()
    files = [str(PROTO / "hypereyes/v1" / name) for name in ("common.proto", "reward.proto")]
    assert protoc.main(["protoc", f"-I{PROTO}", f"--python_out={out}", f"--grpc_python_out={out}", *files]) == 0
    sys.path.insert(0, out)
    from hypereyes.v1 import common_pb2, reward_pb2, reward_pb2_grpc
    return common_pb2, reward_pb2, reward_pb2_grpc


common, reward, services = compiled()
task = common.Task(id="t", kind=common.TASK_KIND_VISUAL_SELECT, question="Which city?", answers=["Paris"],
                   reference=common.Reference(rounds=2, searches=4))
answered = lambda answer, *searches: common.Trajectory(mask=common.PackedBools(), ending=common.ENDING_KIND_ANSWERED, answer=answer,
                                                       rounds=[common.Round(searches=count) for count in searches])
group = common.RolloutGroup(id="t@1", task_id="t", actor_id="python", rollouts=[answered("the paris", 3, 1), answered("Rome", 1)])
with grpc.insecure_channel(sys.argv[1]) as channel:
    reply = services.RewardStub(channel).ScoreGroup(reward.ScoreGroupRequest(group=group, task=task), timeout=10)
for score in reply.scores:
    print(f"reward {score.reward:.2f}", common.BonusBranch.Name(score.branch), common.Route.Name(score.route))
