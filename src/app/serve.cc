// steelyard serve
#include <unistd.h>
#ifdef __GLIBC__
#include <malloc.h>
#endif

#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <ctime>
#include <memory>
#include <thread>
#include <utility>

#include "api/api_keys.h"
#include "api/requests.h"
#include "api/server.h"
#include "app/command_line.h"
#include "app/commands.h"
#include "app/common.h"
#include "app/log_queue.h"
#include "app/output.h"
#include "app/server_call.h"
#include "base/error.h"
#include "base/readable.h"
#include "decoder/decoder.h"
#include "engine/loaded_model.h"
#include "engine/model_manager.h"
#include "observe/telemetry.h"
#include "store/store.h"

namespace steelyard {
namespace {

struct Flags {
  std::string host;
  int port = -1;
  std::uint32_t parallel = 4, max_queue = 512;
  std::string keep_alive = "5m";
  std::vector<std::string> origins, hosts;
  std::string api_keys;
  bool quiet = false, forget_prompts = false;
  LoadFlags load;
};

void apply_address(const std::string& text, ServerOptions& options) {
  ServerAddress address{options.host, options.port};
  read_address(text, address);
  options.host = address.host;
  options.port = address.port;
}

// "a, b" → {"a", "b"}
std::vector<std::string> split_list(const std::string& text) {
  std::vector<std::string> parts;
  std::string part;
  for (const char c : text + ",") {
    if (c != ',' && c != ' ') {
      part += c;
    } else if (!part.empty()) {
      parts.push_back(std::exchange(part, {}));
    }
  }
  return parts;
}

ServerOptions server_options(const Flags& flags, LogQueue& log) {
  ServerOptions options;
  options.version = STEELYARD_VERSION;
  options.telemetry = std::make_shared<const Telemetry>();
  options.allowed_hosts = flags.hosts;
  if (const char* env = std::getenv("STEELYARD_ALLOW_HOST"))
    for (std::string& host : split_list(env)) options.allowed_hosts.push_back(std::move(host));
  if (const char* env = std::getenv("STEELYARD_HOST"); env && *env) apply_address(env, options);
  if (!flags.host.empty()) apply_address(flags.host, options);
  if (flags.port >= 0) options.port = static_cast<std::uint16_t>(flags.port);
  options.allowed_origins = flags.origins;
  if (!flags.api_keys.empty()) options.keys = api::ApiKeys::read(flags.api_keys);
  if (!flags.quiet) options.log = [&log](const std::string& line) { log.write(line); };
  return options;
}

ModelEvents model_events(LogQueue& log) {
  ModelEvents events;
  events.planned = [&log](const PreparedModel& m) {
    for (const std::string& text : m.notes) log.write("note: " + text);
    if (!m.device_note.empty()) log.write(m.device_note + "; using the CPU");
    if (!m.placement_note.empty()) log.write(m.placement_note);
    log.write(devices_text(m));
  };
  events.loaded = [&log](const LoadedModel& m) {
    const MemoryActual actual = m.decoder().measure();
    log.write(to_text(m.plan(), &actual.lines));
    log.write(fmt::format("{} loaded in {:.2f} s", readable(m.path().filename().string()), m.load_seconds()));
    for (const std::string& report : m.reports()) log.write(report);
  };
  events.unloaded = [&log](const std::string& name, const std::string& why) {
    log.write(fmt::format("{} unloaded{}{}", readable(name), why.empty() ? "" : " ", readable(why)));
  };
  return events;
}

// Those that end the server. One that was ignored at the start stays so: that is how nohup, and a script for
// its background jobs, keep a program alive.
sigset_t ending_signals() {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  for (const int number : {SIGINT, SIGHUP}) {
    struct sigaction before {};
    sigaction(number, nullptr, &before);
    if (before.sa_handler != SIG_IGN) sigaddset(&signals, number);
  }
  return signals;
}

// Memory of requests goes back to the system: few arenas, and what is large is mapped by itself.
void tame_allocator() {
#ifdef __GLIBC__
  mallopt(M_ARENA_MAX, 4);
  mallopt(M_MMAP_THRESHOLD, 256 << 10);
  mallopt(M_TRIM_THRESHOLD, 1 << 20);
#endif
}

void say_where(const Server& server, bool keys, LogQueue& log) {
  log.write(fmt::format("listening on http://{}; Ctrl-C stops", server.address()));
  if (server.loopback()) return;
  if (keys)
    log.write("keys and texts cross the network as they are: put a proxy that speaks TLS before it");
  else
    log.write(
        "everybody who reaches this address may use the models, and nobody may change them: --api-keys wants "
        "a key");
}

// A load that can't be interrupted (a disk that doesn't answer, say) must not hold up the end.
void end_at_last() {
  std::thread([] {
    std::this_thread::sleep_for(std::chrono::seconds(5));
    std::_Exit(0);
  }).detach();
}

// A thread that waits for the signals of `signals`, which all threads block: the first one stops the server.
// What can't be ended in good order ends all the same, at once when asked again.
class SignalWaiter {
 public:
  SignalWaiter(Server& server, const sigset_t& signals)
      : thread_([this, &server, signals] { wait(server, signals); }) {}
  ~SignalWaiter() {
    ended_ = true;
    pthread_kill(thread_.native_handle(), SIGTERM);
    thread_.join();
  }

 private:
  void wait(Server& server, const sigset_t& signals) const {
    int signal = 0;
    sigwait(&signals, &signal);
    if (ended_) return;
    server.stop();
    const timespec patience{15, 0};
    const int again = sigtimedwait(&signals, nullptr, &patience);
    if (!ended_) std::_Exit(again > 0 ? 128 + again : 0);
  }

  std::atomic<bool> ended_ = false;
  std::thread thread_;
};

int serve(const Flags& flags) {
  // Blocked here, so in every thread made from here on.
  const sigset_t signals = ending_signals();
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  tame_allocator();

  const ModelStore store = ModelStore::from_environment();
  ModelOptions options = flags.load.options();
  options.slots = flags.parallel;
  options.max_queue = flags.max_queue;
  options.reuse_prefixes = !flags.forget_prompts;
  LogQueue log(STDERR_FILENO);
  ModelManager models([&store](std::string_view name) { return store.find_path(name); }, options,
                      model_events(log), api::parse_keep_alive(flags.keep_alive));
  models.check_device();
  Server server(server_options(flags, log), models, store);
  say_where(server, !flags.api_keys.empty(), log);
  {
    const SignalWaiter waiter(server, signals);
    server.run();
  }
  log.write("stopped");
  end_at_last();
  return 0;
}

void check_keep_alive(const std::string& text) {
  try {
    api::parse_keep_alive(text);
  } catch (const Error&) {
    throw_usage("wants seconds, or a duration such as 5m or 1h30m, not '{}'", readable(text));
  }
}

}  // namespace

void add_serve(CLI::App& app, Action& action) {
  auto* command = add_command(
      app, "serve", "serve the models of the store over HTTP: Ollama's API and OpenAI's chat completions",
      "  steelyard serve\n"
      "  steelyard serve --host 0.0.0.0 --port 8080 --parallel 8 --context 8192\n"
      "  curl http://127.0.0.1:11434/api/generate -d '{\"model\": \"smollm2\", \"prompt\": \"Hi\"}'");
  auto flags = std::make_shared<Flags>();
  command->add_option("--host", flags->host,
                      "address to listen on (default: $STEELYARD_HOST, else 127.0.0.1)");
  takes_number(command->add_option("--port", flags->port, "port; 0 takes any free one (default: 11434)"), 0,
               65535);
  takes_number(
      command->add_option("--parallel", flags->parallel, "conversations answered at once by a model"), 1,
      4096)
      ->capture_default_str();
  takes_number(
      command->add_option("--max-queue", flags->max_queue, "requests that may wait; more get status 503"), 1,
      1 << 20)
      ->capture_default_str();
  takes(command->add_option(
            "--keep-alive,--keepalive", flags->keep_alive,
            "how long a model stays loaded after its last use: seconds, or 5m, 1h30m; negative: always"),
        "TIME", check_keep_alive)
      ->capture_default_str();
  takes_several(
      command->add_option("--allow-host", flags->hosts,
                          "a name of this machine that requests on the loopback address may use (also "
                          "$STEELYARD_ALLOW_HOST, with commas); may be given several times"),
      "NAME");
  command->add_flag("--no-prefix-cache", flags->forget_prompts,
                    "read every prompt anew: no client can tell by time or cached_tokens what others asked");
  takes_several(command->add_option("--origin", flags->origins,
                                    "a web origin that browsers may call from; may be given several times"),
                "URL");
  command
      ->add_option("--api-keys", flags->api_keys,
                   "a file of keys (`steelyard key` adds one): every request then needs one of them, and one "
                   "of the role manage to change models")
      ->type_name("FILE");
  command->add_flag("--quiet", flags->quiet, "no line for each request");
  flags->load.add_with_devices(*command);
  command->callback([&action, flags] { action = [flags] { return serve(*flags); }; });
}

}  // namespace steelyard
