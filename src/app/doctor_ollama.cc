#include "app/doctor_ollama.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <utility>
#include <vector>

#include "app/doctor_machine.h"
#include "base/error.h"
#include "base/readable.h"
#include "observe/host.h"
#include "store/web_client.h"

namespace steelyard {
namespace {

using doctor::DeviceFacts;
using doctor::Facts;
using doctor::OtherProcess;
using Json = nlohmann::json;

constexpr int kTokens = 64;
constexpr double kReload = 0.5;  // seconds of a second request's load: no load takes none

class Ollama {
 public:
  explicit Ollama(std::string url) : url_(std::move(url)), client_({}, 600) {
    if (url_.find("://") == url_.npos) url_ = "http://" + url_;
    while (url_.ends_with('/')) url_.pop_back();
  }
  bool local() const { return is_local_origin(origin_of(url_)); }

  Json ask(const std::string& method, const std::string& path, const Json& body = nullptr) {
    WebRequest request{.method = method, .url = url_ + path};
    if (const char* key = std::getenv("STEELYARD_API_KEY"); key && *key)
      request.secret = fmt::format("Authorization: Bearer {}", key);
    if (!body.is_null()) request.headers = {"Content-Type: application/json"}, request.body = body.dump();
    const WebResponse response = client_.send(request);
    if (!response.failure.empty())
      throw_error(ErrorKind::io, "{} doesn't answer: {}", url_, readable(response.failure));
    Json answer = Json::parse(response.body, nullptr, false);
    if (!answer.is_object())
      throw_error(ErrorKind::bad_input, "{}{} doesn't answer as Ollama does", url_, path);
    if (response.status != 200) {
      const auto why = answer.find("error");
      throw_error(response.status == 404 ? ErrorKind::not_found : ErrorKind::io, "{} says: {}", url_,
                  why != answer.end() && why->is_string() ? readable(why->get<std::string>())
                                                          : fmt::format("status {}", response.status));
    }
    return answer;
  }

 private:
  std::string url_;
  WebClient client_;
};

// What others' answers hold is believed only where it has the right type.
double number(const Json& object, const char* key) {
  const auto found = object.is_object() ? object.find(key) : object.end();
  return object.is_object() && found != object.end() && found->is_number() && found->get<double>() > 0
             ? found->get<double>()
             : 0;
}
std::string text(const Json& object, const char* key) {
  if (!object.is_object()) return {};
  const auto found = object.find(key);
  return found != object.end() && found->is_string() ? found->get<std::string>() : std::string();
}
Json member(const Json& object, const char* key) {
  return object.is_object() && object.contains(key) ? object[key] : Json();
}
Json named(const Json& list, const std::string& name) {
  if (list.is_array())
    for (const Json& m : list)
      if (text(m, "name") == name || text(m, "model") == name || text(m, "name") == name + ":latest")
        return m;
  return {};
}

std::string chosen_model(const Json& running, const std::string& wanted) {
  if (!wanted.empty()) return wanted;
  if (running.is_array() && !running.empty()) return text(running[0], "name");
  throw_error(ErrorKind::not_found, "that server has no model loaded: say which one to load and time");
}

void add_shape(const Json& show, Facts& f) {
  const Json info = member(show, "model_info");
  const std::string arch = text(info, "general.architecture");
  f.quantization = readable(text(member(show, "details"), "quantization_level"));
  f.layers = static_cast<std::uint32_t>(std::min(number(info, (arch + ".block_count").c_str()), 1e4)) + 1;
  f.width = static_cast<std::uint32_t>(std::min(number(info, (arch + ".embedding_length").c_str()), 1e6));
  f.context_train =
      static_cast<std::uint32_t>(std::min(number(info, (arch + ".context_length").c_str()), 4e9));
}

// Two requests of a few dozen tokens: the first may load, the second shouldn't.
void time_it(Ollama& server, const std::string& model, Facts& f) {
  for (int i = 0; i < 2; ++i) {
    const Json done = server.ask("POST", "/api/generate",
                                 {{"model", model},
                                  {"prompt", "Count from one to two hundred in words."},
                                  {"raw", true},
                                  {"stream", false},
                                  {"options", {{"num_predict", kTokens}, {"temperature", 0}}}});
    ++f.requests;
    const double load = 1e-9 * number(done, "load_duration");
    f.loads += load > kReload;
    if (i == 0) f.load_seconds = load;
    const double seconds = 1e-9 * number(done, "eval_duration");
    if (seconds > 0)
      f.tokens_per_second = std::max(f.tokens_per_second, number(done, "eval_count") / seconds);
  }
  if (f.loads == 2) f.loads = 3;  // the second had no reason to load: so will every one
}

bool is_server(const OtherProcess& p) {
  return p.name.find("ollama") != p.name.npos || p.name.find("llama") != p.name.npos ||
         p.name.find("steelyard") != p.name.npos;
}

// The model's bytes by the GPUs on which such a server has memory; without any in sight all on one GPU.
void place_on_gpus(double bytes, Facts& f) {
  double held = 0;
  for (DeviceFacts& d : f.devices)
    for (const OtherProcess& p : d.others)
      if (d.gpu && is_server(p)) held += static_cast<double>(p.bytes);
  if (held <= 0) {
    DeviceFacts* gpu = nullptr;
    for (DeviceFacts& d : f.devices)
      if (d.gpu && !gpu) gpu = &d;
    if (!gpu) gpu = &*f.devices.insert(f.devices.begin(), DeviceFacts{.id = "GPU", .gpu = true});
    gpu->holds["model"] = gpu->read_weights = static_cast<std::uint64_t>(bytes);
    return;
  }
  std::size_t used = 0;
  for (DeviceFacts& d : f.devices) {
    double here = 0;
    for (const OtherProcess& p : d.others)
      if (is_server(p)) here += static_cast<double>(p.bytes);
    if (!d.gpu || here <= 0) continue;
    d.holds["model"] = d.read_weights = static_cast<std::uint64_t>(bytes * here / held);
    std::erase_if(d.others, is_server);
    ++used;
  }
  if (used > 1) f.split = doctor::Split::stages;
}

// `size` is what the model takes, `vram` what of it lies on GPUs.
void place(const Json& running, double file_bytes, Facts& f) {
  const double size = number(running, "size"), vram = std::min(size, number(running, "size_vram"));
  f.context = static_cast<std::uint32_t>(std::min(number(running, "context_length"), 4e9));
  if (size <= 0) return;
  const double on_gpu = vram / size, weights = file_bytes > 0 ? std::min(file_bytes, size) : size;
  f.layers_on_gpu = static_cast<std::uint32_t>(std::lround(on_gpu * f.layers));
  if (vram > 0) place_on_gpus(weights * on_gpu, f);
  if (vram < size) {
    DeviceFacts host{.id = "CPU"};
    host.holds["model"] = host.read_weights = static_cast<std::uint64_t>(weights * (1 - on_gpu));
    f.devices.push_back(std::move(host));
  }
}

}  // namespace

Facts ask_ollama(const std::string& url, const std::string& wanted) {
  Ollama server(url);
  Facts f;
  f.engine = doctor::Engine::ollama;
  const std::string name = chosen_model(member(server.ask("GET", "/api/ps"), "models"), wanted);
  f.model = readable(name);
  add_shape(server.ask("POST", "/api/show", {{"model", name}}), f);
  const double file_bytes = number(named(member(server.ask("GET", "/api/tags"), "models"), name), "size");
  MachineWatch watch;
  time_it(server, name, f);
  const Json running = named(member(server.ask("GET", "/api/ps"), "models"), name);
  if (server.local()) {
    add_gpus(watch.now(), f);
    f.host = read_host();
  }
  place(running, file_bytes, f);
  return f;
}

}  // namespace steelyard
