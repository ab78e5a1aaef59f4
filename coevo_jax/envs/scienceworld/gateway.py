"""The connection to a simulator's Java process, without the second tries of py4j.

Where py4j loses a connection it sends the command again, so that an action could be played twice, and writes
to the root logger. Here a lost connection and an answer that does not come in time are raised at once.
"""

from py4j.java_gateway import GatewayClient, GatewayParameters, JavaGateway
from py4j.protocol import Py4JNetworkError, is_fatal_error


class _Client(GatewayClient):
    def send_command(self, command: str, retry: bool = True, binary: bool = False) -> str:
        connection = self._get_connection()
        try:
            response = connection.send_command(command)
        except Py4JNetworkError:
            connection.close(True)
            raise
        if is_fatal_error(response):
            connection.close(False)
        else:
            self._give_back_connection(connection)
        return response


class Gateway(JavaGateway):
    """A py4j gateway whose calls raise Py4JNetworkError where no answer comes within `seconds`."""

    def __init__(self, port: int, token: str, seconds: float):
        parameters = GatewayParameters(
            port=port, auth_token=token, read_timeout=seconds, enable_memory_management=False
        )
        super().__init__(gateway_parameters=parameters)

    def _create_gateway_client(self) -> GatewayClient:
        return _Client(gateway_parameters=self.gateway_parameters)
