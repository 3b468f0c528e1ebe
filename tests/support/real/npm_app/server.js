// A web server as a desktop app's Node sidecar has it: the port from the environment, a health path.
const http = require("node:http");

const port = Number(process.env.PORT);
const server = http.createServer((request, response) => {
  response.writeHead(request.url === "/health" ? 200 : 404, { "Content-Type": "text/plain" });
  response.end(String(process.pid));
});
server.listen(port, "127.0.0.1", () => console.log(`listening on ${port}`));
process.on("SIGTERM", () => {
  console.log("closing");
  server.close(() => process.exit(0));
  server.closeAllConnections();
});
