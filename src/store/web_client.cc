#include "store/web_client.h"

#define CURL_DISABLE_TYPECHECK  // its macros stand in for functions that are looked up here
#include <curl/curl.h>
#include <dlfcn.h>

#include <charconv>
#include <utility>

#include "base/error.h"

namespace steelyard {
namespace {

constexpr std::size_t kMostBody = 16 << 20, kMostHeaders = 256;
constexpr int kMostRedirects = 10;
constexpr long kConnectSeconds = 20;

// libcurl, loaded when it is first needed: with what it depends on it would cost every start of the program 7
// MB.
class Curl {
 public:
  static const Curl& instance() {
    static const Curl curl;
    return curl;
  }

  decltype(&curl_easy_init) init;
  decltype(&curl_easy_cleanup) cleanup;
  decltype(&curl_easy_reset) reset;
  decltype(&curl_easy_perform) perform;
  decltype(&curl_easy_strerror) strerror;
  decltype(&curl_slist_append) append;
  decltype(&curl_slist_free_all) free_list;
  decltype(&curl_url) url;
  decltype(&curl_url_cleanup) url_cleanup;
  decltype(&curl_url_set) url_set;
  decltype(&curl_url_get) url_get;
  decltype(&curl_free) free;
  // Variadic in C; every call here has one more argument.
  CURLcode (*setopt)(CURL*, CURLoption, ...);
  CURLcode (*getinfo)(CURL*, CURLINFO, ...);

 private:
  Curl() {
    void* library = dlopen("libcurl.so.4", RTLD_NOW | RTLD_LOCAL);
    if (library == nullptr)
      throw_error(ErrorKind::unsupported, "reading from the web takes libcurl, which can't be loaded ({})",
                  dlerror());
    find(library, "curl_easy_init", init);
    find(library, "curl_easy_cleanup", cleanup);
    find(library, "curl_easy_reset", reset);
    find(library, "curl_easy_perform", perform);
    find(library, "curl_easy_strerror", strerror);
    find(library, "curl_slist_append", append);
    find(library, "curl_slist_free_all", free_list);
    find(library, "curl_url", url);
    find(library, "curl_url_cleanup", url_cleanup);
    find(library, "curl_url_set", url_set);
    find(library, "curl_url_get", url_get);
    find(library, "curl_free", free);
    find(library, "curl_easy_setopt", setopt);
    find(library, "curl_easy_getinfo", getinfo);
    decltype(&curl_global_init) start;
    find(library, "curl_global_init", start);
    if (start(CURL_GLOBAL_DEFAULT) != CURLE_OK) throw Error(ErrorKind::internal, "libcurl doesn't start");
  }
  template <typename Fn>
  static void find(void* library, const char* name, Fn& function) {
    function = reinterpret_cast<Fn>(dlsym(library, name));
    if (function == nullptr) throw_error(ErrorKind::unsupported, "this machine's libcurl has no {}", name);
  }
};

// A request under way.
struct Transfer {
  WebResponse response;
  const OnBody* on_body;
  std::stop_token stop;
  bool enough = false;  // nobody wants more
};

std::string lowered(std::string text) {
  for (char& c : text)
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  return text;
}

std::string trimmed(std::string_view text) {
  const std::size_t begin = text.find_first_not_of(" \t\r\n"), end = text.find_last_not_of(" \t\r\n");
  return begin == text.npos ? std::string() : std::string(text.substr(begin, end - begin + 1));
}

std::optional<std::uint64_t> number_of(std::string_view text) {
  std::uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

// C calls what follows: nothing may be thrown through it.
std::size_t take_head(char* data, std::size_t, std::size_t n, void* to) noexcept try {
  auto& response = static_cast<Transfer*>(to)->response;
  const std::string_view line(data, n);
  if (line.starts_with("HTTP/")) {  // of an answer before the last one, such as a proxy's
    response.headers.clear();
    const std::size_t space = line.find(' ');
    response.status =
        static_cast<long>(number_of(line.substr(std::min(space, line.size() - 1) + 1, 3)).value_or(0));
  } else if (const std::size_t colon = line.find(':');
             colon != line.npos && response.headers.size() < kMostHeaders) {
    response.headers[lowered(std::string(line.substr(0, colon)))] = trimmed(line.substr(colon + 1));
  }
  return n;
} catch (...) {
  return 0;
}

std::size_t take_body(char* data, std::size_t, std::size_t n, void* to) noexcept try {
  auto& transfer = *static_cast<Transfer*>(to);
  if (*transfer.on_body) {
    const std::span piece(reinterpret_cast<const std::byte*>(data), n);
    if ((*transfer.on_body)(transfer.response, piece)) return n;
    transfer.enough = true;
    return CURL_WRITEFUNC_ERROR;
  }
  if (transfer.response.body.size() + n > kMostBody) return CURL_WRITEFUNC_ERROR;
  transfer.response.body.append(data, n);
  return n;
} catch (...) {
  return CURL_WRITEFUNC_ERROR;
}

int look_up(void* from, curl_off_t, curl_off_t, curl_off_t, curl_off_t) noexcept {
  return static_cast<Transfer*>(from)->stop.stop_requested() ? 1 : 0;
}

// A part of an address as libcurl itself reads it, so that nobody can read it in two ways.
std::string url_part(const std::string& url, CURLUPart part, unsigned flags) {
  const Curl& curl = Curl::instance();
  const std::unique_ptr<CURLU, void (*)(CURLU*)> handle(curl.url(), curl.url_cleanup);
  char* value = nullptr;
  if (!handle || curl.url_set(handle.get(), CURLUPART_URL, url.c_str(), 0) != CURLUE_OK ||
      curl.url_get(handle.get(), part, &value, flags) != CURLUE_OK)
    return {};
  std::string text = value;
  curl.free(value);
  return text;
}

}  // namespace

struct WebClient::Handle {
  const Curl& curl = Curl::instance();
  std::unique_ptr<CURL, void (*)(CURL*)> easy{curl.init(), curl.cleanup};
  char reason[CURL_ERROR_SIZE] = "";

  template <typename T>
  void set(CURLoption option, T value) {
    curl.setopt(easy.get(), option, value);
  }
  void set_up(const WebRequest& request, Transfer& transfer, long stall_seconds) {
    curl.reset(easy.get());  // the connections stay
    set(CURLOPT_URL, request.url.c_str());
    set(CURLOPT_PROTOCOLS_STR, "http,https");
    set(CURLOPT_CONNECTTIMEOUT, kConnectSeconds);
    set(CURLOPT_LOW_SPEED_LIMIT, 1L);
    set(CURLOPT_LOW_SPEED_TIME, stall_seconds);
    set(CURLOPT_NOSIGNAL, 1L);
    set(CURLOPT_USERAGENT, "steelyard");
    set(CURLOPT_ERRORBUFFER, static_cast<char*>(reason));
    set(CURLOPT_HEADERFUNCTION, &take_head);
    set(CURLOPT_HEADERDATA, &transfer);
    set(CURLOPT_WRITEFUNCTION, &take_body);
    set(CURLOPT_WRITEDATA, &transfer);
    set(CURLOPT_XFERINFOFUNCTION, &look_up);
    set(CURLOPT_XFERINFODATA, &transfer);
    set(CURLOPT_NOPROGRESS, 0L);
    if (is_local_origin(origin_of(request.url))) set(CURLOPT_NOPROXY, "*");
    if (request.method == "HEAD")
      set(CURLOPT_NOBODY, 1L);
    else if (request.method != "GET")
      set(CURLOPT_CUSTOMREQUEST, request.method.c_str());
    if (!request.body.empty() || request.method == "POST") {
      set(CURLOPT_POSTFIELDS, request.body.c_str());
      set(CURLOPT_POSTFIELDSIZE_LARGE, static_cast<curl_off_t>(request.body.size()));
    }
  }
};

std::string WebResponse::header(const std::string& name) const {
  const auto it = headers.find(name);
  return it == headers.end() ? std::string() : it->second;
}

std::optional<std::uint64_t> WebResponse::total() const {
  const std::string range = header("content-range");
  if (const std::size_t slash = range.find('/'); slash != range.npos)
    return number_of(std::string_view(range).substr(slash + 1));
  return status == 200 ? number_of(header("content-length")) : std::nullopt;
}

std::optional<std::uint64_t> WebResponse::range_begin() const {
  std::string_view range =
      headers.contains("content-range") ? headers.at("content-range") : std::string_view();
  if (!range.starts_with("bytes ")) return std::nullopt;
  range.remove_prefix(6);
  return number_of(range.substr(0, range.find('-')));
}

WebClient::WebClient(std::stop_token stop, long stall_seconds)
    : handle_(std::make_unique<Handle>()), stop_(std::move(stop)), stall_seconds_(stall_seconds) {
  if (!handle_->easy) throw Error(ErrorKind::internal, "libcurl doesn't start");
}

WebClient::~WebClient() = default;

WebResponse WebClient::send(const WebRequest& request, const OnBody& on_body) {
  const Curl& curl = handle_->curl;
  Transfer transfer{{}, &on_body, stop_};
  transfer.response.url = request.url;
  handle_->reason[0] = '\0';
  handle_->set_up(request, transfer, stall_seconds_);
  std::unique_ptr<curl_slist, void (*)(curl_slist*)> headers(nullptr, curl.free_list);
  const auto add = [&](const std::string& line) {
    if (curl_slist* longer = curl.append(headers.get(), line.c_str()))
      headers.release(), headers.reset(longer);
  };
  for (const std::string& line : request.headers) add(line);
  if (!request.secret.empty()) add(request.secret);
  handle_->set(CURLOPT_HTTPHEADER, headers.get());
  const CURLcode result = curl.perform(handle_->easy.get());
  handle_->set(CURLOPT_HTTPHEADER, static_cast<curl_slist*>(nullptr));
  if (result != CURLE_OK && !transfer.enough) {
    transfer.response.failure = *handle_->reason ? handle_->reason : curl.strerror(result);
    if (stop_.stop_requested()) transfer.response.failure = "it was cancelled";
  }
  return std::move(transfer.response);
}

WebResponse WebClient::get(WebRequest request, const OnBody& on_body) {
  const std::string origin = origin_of(request.url);
  for (int hop = 0;; ++hop) {
    const OnBody body = [&](const WebResponse& head, std::span<const std::byte> piece) {
      return head.status >= 300 || on_body(head, piece);  // nobody wants a redirect's or an error's
    };
    WebResponse response = send(request, on_body ? body : OnBody());
    if (response.status < 300 || response.status >= 400 || response.status == 304) return response;
    char* next = nullptr;
    handle_->curl.getinfo(handle_->easy.get(), CURLINFO_REDIRECT_URL, &next);
    if (next == nullptr) return response;
    const std::string from = origin_of(request.url), to = origin_of(next);
    response.failure = hop == kMostRedirects ? "it is redirected again and again"
                       : to.empty()          ? "it is redirected to what is no address of the web"
                       : from.starts_with("https:") && !to.starts_with("https:")
                           ? "it is redirected from https to http, which isn't followed"
                           : "";
    if (!response.failure.empty()) return response;
    if (to != origin) request.secret.clear();
    request.url = next;
  }
}

std::string origin_of(const std::string& url) {
  const std::string scheme = lowered(url_part(url, CURLUPART_SCHEME, 0));
  const std::string host = lowered(url_part(url, CURLUPART_HOST, 0));
  const std::string port = url_part(url, CURLUPART_PORT, CURLU_DEFAULT_PORT);
  if ((scheme != "http" && scheme != "https") || host.empty() || port.empty()) return {};
  return scheme + "://" + host + ":" + port;
}

bool is_local_origin(std::string_view origin) {
  const std::size_t begin = origin.find("://");
  if (begin == origin.npos) return false;
  std::string_view host = origin.substr(begin + 3);
  host = host.substr(0, host.rfind(':'));
  return host == "localhost" || host == "[::1]" ||
         (host.starts_with("127.") && host.find_first_not_of("0123456789.") == host.npos);
}

std::string url_encoded(std::string_view text) {
  std::string out;
  for (const char c : text) {
    const bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                       c == '-' || c == '.' || c == '_' || c == '~';
    out += plain ? std::string(1, c) : fmt::format("%{:02X}", static_cast<unsigned char>(c));
  }
  return out;
}

}  // namespace steelyard
