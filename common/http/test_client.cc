#include "common/http/test_client.h"

#include <arpa/inet.h>
#include <glog/logging.h>
#include <netinet/in.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <cstdlib>

namespace tarn {

std::string HttpTestResponse::Header(const std::string& name) const {
  for (const auto& [key, value] : headers) {
    if (strcasecmp(key.c_str(), name.c_str()) == 0) return value;
  }
  return "";
}

HttpTestClient::HttpTestClient(int port, int receive_buffer) {
  fd_ = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  PCHECK(fd_ >= 0);
  const timeval patience{30, 0};
  setsockopt(fd_, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
  setsockopt(fd_, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
  if (receive_buffer > 0) {
    setsockopt(fd_, SOL_SOCKET, SO_RCVBUF, &receive_buffer, sizeof(receive_buffer));
  }
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (connect(fd_, reinterpret_cast<sockaddr*>(&address), sizeof(address)) != 0) Close();
}

HttpTestClient::~HttpTestClient() { Close(); }

void HttpTestClient::Close() {
  if (fd_ >= 0) close(fd_);
  fd_ = -1;
}

bool HttpTestClient::SendRaw(const std::string& bytes) {
  size_t sent = 0;
  while (fd_ >= 0 && sent < bytes.size()) {
    const ssize_t count = send(fd_, bytes.data() + sent, bytes.size() - sent, MSG_NOSIGNAL);
    if (count <= 0) return false;
    sent += static_cast<size_t>(count);
  }
  return fd_ >= 0;
}

bool HttpTestClient::SendRequest(const std::string& method, const std::string& target,
                                 const std::string& body, const HttpHeaders& headers) {
  std::string text = method + " " + target + " HTTP/1.1\r\nHost: test\r\n";
  for (const auto& [name, value] : headers) text += name + ": " + value + "\r\n";
  if (!body.empty()) text += "Content-Length: " + std::to_string(body.size()) + "\r\n";
  return SendRaw(text + "\r\n" + body);
}

bool HttpTestClient::Receive() {
  char buffer[16 << 10];
  const ssize_t count = fd_ < 0 ? -1 : recv(fd_, buffer, sizeof(buffer), 0);
  if (count <= 0) return false;
  input_.append(buffer, static_cast<size_t>(count));
  return true;
}

std::optional<std::string> HttpTestClient::ReadLine() {
  size_t end;
  while ((end = input_.find("\r\n")) == std::string::npos) {
    if (!Receive()) return std::nullopt;
  }
  std::string line = input_.substr(0, end);
  input_.erase(0, end + 2);
  return line;
}

std::optional<std::string> HttpTestClient::ReadBytes(size_t count) {
  while (input_.size() < count) {
    if (!Receive()) return std::nullopt;
  }
  std::string bytes = input_.substr(0, count);
  input_.erase(0, count);
  return bytes;
}

HttpTestResponse HttpTestClient::ReadHead() {
  HttpTestResponse response;
  const std::optional<std::string> first = ReadLine();
  if (!first.has_value() || first->size() < 12 || first->compare(0, 7, "HTTP/1.") != 0) return {};
  response.status = std::atoi(first->substr(9, 3).c_str());
  while (true) {
    const std::optional<std::string> line = ReadLine();
    if (!line.has_value()) return {};
    if (line->empty()) return response;
    const size_t colon = line->find(": ");
    if (colon == std::string::npos) return {};
    response.headers.emplace_back(line->substr(0, colon), line->substr(colon + 2));
  }
}

std::optional<std::string> HttpTestClient::ReadChunk() {
  const std::optional<std::string> size_line = ReadLine();
  if (!size_line.has_value()) return std::nullopt;
  const size_t size = std::strtoul(size_line->c_str(), nullptr, 16);
  std::optional<std::string> chunk = ReadBytes(size + 2);
  if (chunk.has_value()) chunk->resize(size);
  return chunk;
}

HttpTestResponse HttpTestClient::ReadResponse(bool head_only) {
  HttpTestResponse response = ReadHead();
  if (response.status == 0 || head_only) return response;
  if (response.Header("Transfer-Encoding") == "chunked") {
    while (true) {
      const std::optional<std::string> chunk = ReadChunk();
      if (!chunk.has_value()) return {};
      if (chunk->empty()) return response;
      response.body += *chunk;
    }
  }
  const std::string length = response.Header("Content-Length");
  if (length.empty()) return response;
  const std::optional<std::string> body = ReadBytes(std::strtoul(length.c_str(), nullptr, 10));
  if (!body.has_value()) return {};
  response.body = *body;
  return response;
}

std::string HttpTestClient::ReadToEnd() {
  while (Receive()) {
  }
  return std::exchange(input_, "");
}

bool HttpTestClient::ReadsEnd() {
  if (!input_.empty() || fd_ < 0) return input_.empty();
  char byte;
  const ssize_t count = recv(fd_, &byte, 1, 0);
  return count == 0 || (count < 0 && errno == ECONNRESET);
}

HttpTestResponse HttpTestClient::Get(const std::string& target) {
  SendRequest("GET", target);
  return ReadResponse();
}

HttpTestResponse HttpTestClient::Post(const std::string& target, const std::string& body) {
  SendRequest("POST", target, body);
  return ReadResponse();
}

}  // namespace tarn
