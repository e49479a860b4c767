#pragma once

// A blocking HTTP client for tests, down to raw bytes. Every wait ends after 30 seconds, with a
// broken result. Not thread-safe.

#include <optional>
#include <string>

#include "common/http/server.h"

namespace tarn {

struct HttpTestResponse {
  int status = 0;  // 0: the connection ended or the wait was over before a whole answer came
  HttpHeaders headers;
  std::string body;

  // Empty if there is no such header; letter case is ignored.
  std::string Header(const std::string& name) const;
};

class HttpTestClient {
 public:
  // Connects to 127.0.0.1. `receive_buffer` bytes of the kernel's, if not 0, bound what a slow
  // reader takes.
  explicit HttpTestClient(int port, int receive_buffer = 0);
  ~HttpTestClient();
  HttpTestClient(const HttpTestClient&) = delete;
  HttpTestClient& operator=(const HttpTestClient&) = delete;

  // False if the server has closed the connection.
  bool SendRaw(const std::string& bytes);
  bool SendRequest(const std::string& method, const std::string& target,
                   const std::string& body = "", const HttpHeaders& headers = {});

  // A whole answer, chunked or not. `head_only`: it answers HEAD.
  HttpTestResponse ReadResponse(bool head_only = false);
  // Only status and headers.
  HttpTestResponse ReadHead();
  // The next chunk after ReadHead; "" at the end; nothing if the connection broke.
  std::optional<std::string> ReadChunk();
  // What comes until the connection ends.
  std::string ReadToEnd();
  // Whether the server closes the connection without another byte.
  bool ReadsEnd();

  HttpTestResponse Get(const std::string& target);
  HttpTestResponse Post(const std::string& target, const std::string& body);

  // Ends the connection at once (the destructor does it as well).
  void Close();

 private:
  // False at the end of the connection or of patience.
  bool Receive();
  std::optional<std::string> ReadLine();
  std::optional<std::string> ReadBytes(size_t count);

  int fd_ = -1;
  std::string input_;
};

}  // namespace tarn
