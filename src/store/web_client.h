// Requests to web servers, by libcurl: proxies as the environment has them (HTTPS_PROXY and the like; none
// for this machine's own addresses), certificates as the system has them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <stop_token>
#include <string>
#include <string_view>
#include <vector>

namespace steelyard {

struct WebRequest {
  std::string method = "GET";
  std::string url;
  std::vector<std::string> headers;  // "Name: value"
  std::string secret;                // likewise; sent to the url's own scheme, host and port alone
  std::string body;
};

struct WebResponse {
  long status = 0;                             // 0: none came
  std::map<std::string, std::string> headers;  // names in lower case, the last of each
  std::string body;                            // unless the request's OnBody took it
  std::string failure;                         // why the answer isn't whole; empty: it is
  std::string url;                             // that answered

  std::string header(const std::string& name) const;
  // Of the whole file, by Content-Range; without that Content-Length of an answer that is all of it.
  std::optional<std::uint64_t> total() const;
  // Where the bytes begin, by Content-Range; nothing when the answer has none that can be read.
  std::optional<std::uint64_t> range_begin() const;
};

// Takes a piece of the body; `head` has status and headers. False: no more is wanted.
using OnBody = std::function<bool(const WebResponse& head, std::span<const std::byte> piece)>;

// One thread at a time; a connection is used again.
class WebClient {
 public:
  // When `stop` is asked to stop, what is under way fails within a second or so. `stall_seconds` without a
  // byte count as failed. Throws Error(unsupported) where there is no libcurl.
  explicit WebClient(std::stop_token stop = {}, long stall_seconds = 60);
  ~WebClient();
  WebClient(const WebClient&) = delete;
  WebClient& operator=(const WebClient&) = delete;

  // Redirects aren't followed. Bodies that nobody takes may have 16 MiB. Throws nothing for what servers and
  // networks do: `failure` says it.
  WebResponse send(const WebRequest& request, const OnBody& on_body = {});
  // GET, and redirects are followed: ten at most, none from https to http, and the secret stays behind when
  // they lead elsewhere.
  WebResponse get(WebRequest request, const OnBody& on_body = {});

 private:
  struct Handle;
  std::unique_ptr<Handle> handle_;
  std::stop_token stop_;
  long stall_seconds_;
};

// "https://host:port", in lower case and with the port that goes without saying; empty: it is no address of
// the web.
std::string origin_of(const std::string& url);
// Whether the origin's host is this machine (127.0.0.1, ::1, localhost).
bool is_local_origin(std::string_view origin);
// "a b" → "a%20b": for a part of an address.
std::string url_encoded(std::string_view text);

}  // namespace steelyard
