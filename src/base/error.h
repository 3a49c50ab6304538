// The one exception type of the core. A message is one clear sentence: the cause and, where there is one, the
// way out. The core never prints and never aborts on input: it throws Error, and app/ or api/ turn it into an
// exit code (1, unless it was cancelled) or a status.
#pragma once

#include <fmt/format.h>

#include <stdexcept>
#include <string>
#include <utility>

namespace steelyard {

enum class ErrorKind {
  bad_input,    // a file or request is wrong: HTTP 400
  not_found,    // a model or file doesn't exist: HTTP 404
  no_memory,    // it can't fit: HTTP 503
  unsupported,  // valid, but Steelyard can't do it yet: HTTP 400
  io,           // the system refused: disk full, port in use: HTTP 500
  busy,         // a queue is full: HTTP 503
  cancelled,    // the caller asked to stop
  internal,     // a broken promise inside Steelyard: HTTP 500
};

class Error : public std::runtime_error {
 public:
  Error(ErrorKind kind, std::string message) : std::runtime_error(std::move(message)), kind_(kind) {}
  ErrorKind kind() const { return kind_; }

 private:
  ErrorKind kind_;
};

// throw_error(ErrorKind::bad_input, "{} is not a GGUF file", path)
template <typename... Args>
[[noreturn]] void throw_error(ErrorKind kind, fmt::format_string<Args...> format, Args&&... args) {
  throw Error(kind, fmt::format(format, std::forward<Args>(args)...));
}

}  // namespace steelyard
