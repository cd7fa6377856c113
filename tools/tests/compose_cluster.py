"""A compose cluster of one's own: its project, its free ports, its containers, and its end without a trace."""

import contextlib
import io
import os
import shutil
import signal
import socket
import subprocess
import tarfile

from repository import TOP

from selftest import Node, Stop

# How long one command of Docker may take on a busy machine; building is not bounded.
COMMAND_S = 180.0
LOG_FILE = "/data/replog.log"


def compose_command():
    """docker-compose, or `docker compose` where that is what is installed."""
    if not shutil.which("docker"):
        raise Stop("docker is not installed")
    return ["docker-compose"] if shutil.which("docker-compose") else ["docker", "compose"]


def run(command, environment=None, within=COMMAND_S):
    """The output of a command, as bytes.

    It runs in a session of its own: Ctrl-C is meant for the test, which then cleans up with such commands. A command
    that is under way when the test is interrupted is waited for, as Docker would go on with it behind our back.
    """
    try:
        process = subprocess.Popen(
            command, cwd=TOP, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            start_new_session=True)
    except OSError as error:
        raise Stop(f"`{' '.join(command)}`: {error}") from error
    try:
        output, errors = process.communicate(timeout=within)
    except subprocess.TimeoutExpired as error:
        raise Stop(f"`{' '.join(command)}` does not end") from error
    except BaseException:
        if within is None:
            # Only building has no bound. It is told to end as by Ctrl-C, and with it the program that compose has
            # started for it; the engine then removes the container that it was building in.
            os.killpg(process.pid, signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=COMMAND_S)
        raise
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
    if process.returncode != 0:
        raise Stop(f"`{' '.join(command)}` failed: {errors.decode(errors='replace').strip()}")
    return output


def docker(*arguments):
    return run(["docker", *arguments]).decode().strip()


class Cluster:
    """The nodes of the compose files, under a project name that nobody else has."""

    FILES = ("docker-compose.yml",)
    NAMES = ("master", "s1", "s2")
    THIRD_FILES = FILES + ("docker-compose.third.yml",)
    THIRD_NAMES = NAMES + ("s3",)

    def __init__(self, project, image):
        self.project = project
        self.files, self.names = self.FILES, self.NAMES
        self.compose = compose_command()
        # All at once, so that no port is found free twice.
        found = [socket.create_server(("127.0.0.1", 0)) for _ in range(2 * len(self.THIRD_NAMES))]
        numbers = [each.getsockname()[1] for each in found]
        for each in found:
            each.close()
        self.gateways = dict(zip(self.THIRD_NAMES, numbers))
        self.environment = os.environ | {"REPLOG_IMAGE": image, "COMPOSE_PROJECT_NAME": project}
        for place, name in enumerate(self.THIRD_NAMES):
            self.environment[f"REPLOG_{name.upper()}_GATEWAY_PORT"] = str(numbers[place])
            self.environment[f"REPLOG_{name.upper()}_WIRE_PORT"] = str(numbers[place + len(self.THIRD_NAMES)])

    def _run(self, *arguments, within=COMMAND_S):
        files = [word for file in self.files for word in ("--file", file)]
        return run([*self.compose, "--project-name", self.project, *files, *arguments], self.environment, within)

    def nodes(self):
        return [Node(name, "127.0.0.1", self.gateways[name]) for name in self.names]

    def build(self):
        self._run("build", within=None)

    def up(self):
        self._run("up", "--detach", "--no-build")

    def down(self):
        """Removes containers and network. The volumes stay."""
        self._run("down")

    def add_the_third(self):
        """From the next start on the cluster has another secondary. Only configuration changes."""
        self.files, self.names = self.THIRD_FILES, self.THIRD_NAMES

    def logs(self):
        return self._run("logs", "--no-color", "--tail", "100").decode(errors="replace")

    def container(self, name):
        """Its id, whether it runs or not."""
        found = docker(
            "ps", "--all", "--quiet", "--filter", f"label=com.docker.compose.project={self.project}",
            "--filter", f"label=com.docker.compose.service={name}")
        if not found:
            raise Stop(f"{name} has no container")
        return found

    def network(self):
        return docker("network", "ls", "--quiet", "--filter", f"label=com.docker.compose.project={self.project}")

    def log_file(self, name):
        """The log file on the node's volume. The image has no program that could print it."""
        data = run(["docker", "cp", f"{self.container(name)}:{LOG_FILE}", "-"])
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            return archive.extractfile(archive.getmembers()[0]).read()

    def pause(self, name):
        docker("pause", self.container(name))

    def unpause(self, name):
        docker("unpause", self.container(name))

    def kill(self, name):
        """SIGKILL, and returns when the process is gone."""
        container = self.container(name)
        docker("kill", "--signal", "KILL", container)
        return docker("wait", container)

    def start(self, name):
        docker("start", self.container(name))

    def disconnect(self, name):
        docker("network", "disconnect", self.network(), self.container(name))

    def connect(self, name):
        # The alias is what compose gave it, and what the master's roster calls it.
        docker("network", "connect", "--alias", name, self.network(), self.container(name))

    def remove(self):
        """Everything the project made: containers, networks, volumes. Raises Stop if something is left."""
        # The files of the larger cluster name all volumes that may be there.
        self.files = self.THIRD_FILES
        label = f"label=com.docker.compose.project={self.project}"
        # A container that a test left paused cannot be stopped.
        for container in docker("ps", "--quiet", "--filter", label, "--filter", "status=paused").split():
            docker("unpause", container)
        self._run("down", "--volumes", "--remove-orphans", "--timeout", "5")
        left = {
            "containers": docker("ps", "--all", "--quiet", "--filter", label),
            "networks": docker("network", "ls", "--quiet", "--filter", label),
            "volumes": docker("volume", "ls", "--quiet", "--filter", label),
        }
        if any(left.values()):
            raise Stop(f"of project {self.project} is left: {left}")
