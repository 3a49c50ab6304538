// steelyard serve
#include <csignal>
#include <memory>
#include <thread>

#include "api/server.h"
#include "app/commands.h"
#include "app/common.h"
#include "app/output.h"
#include "base/error.h"
#include "decoder/decoder.h"
#include "engine/loaded_model.h"
#include "engine/model_manager.h"
#include "store/store.h"

namespace steelyard {
namespace {

struct Flags {
  std::string host;
  int port = -1;
  std::uint32_t parallel = 4, max_queue = 512;
  double keep_alive = 300;
  std::vector<std::string> origins;
  bool quiet = false;
  LoadFlags load;
};

// "host", "host:port", ":port", "[::1]:port", with or without http:// before it.
void apply_address(std::string text, ServerOptions& options) {
  if (const auto scheme = text.find("://"); scheme != std::string::npos) text = text.substr(scheme + 3);
  while (text.ends_with('/')) text.pop_back();
  const auto colon = text.rfind(':');
  const bool port_given = colon != std::string::npos && (text.find(':') == colon || text.find(']') < colon);
  if (port_given) {
    const std::string port = text.substr(colon + 1);
    std::uint16_t number = 0;
    if (!CLI::detail::lexical_cast(port, number))
      throw_error(ErrorKind::bad_input, "'{}' is no port: give one from 0 to 65535", port);
    options.port = number;
    text = text.substr(0, colon);
  }
  if (text.starts_with('[') && text.ends_with(']')) text = text.substr(1, text.size() - 2);
  if (!text.empty()) options.host = text;
}

ServerOptions server_options(const Flags& flags) {
  ServerOptions options;
  if (const char* env = std::getenv("STEELYARD_HOST"); env && *env) apply_address(env, options);
  if (!flags.host.empty()) apply_address(flags.host, options);
  if (flags.port >= 0) options.port = static_cast<std::uint16_t>(flags.port);
  options.allowed_origins = flags.origins;
  if (!flags.quiet) options.log = [](const std::string& line) { note("{}", line); };
  return options;
}

ModelEvents model_events() {
  ModelEvents events;
  events.planned = [](const PreparedModel& m) {
    note_device(m, true);
    note("{}", device_text(m.device->info()));
    write_stderr(to_text(m.plan));
  };
  events.loaded = [](const LoadedModel& m) {
    const MemoryActual actual = m.decoder().measure();
    write_stderr(to_text(m.plan(), &actual.lines));
    note("{} loaded in {:.2f} s", m.path().filename().string(), m.load_seconds());
    if (const auto report = m.decoder().executable().report(); !report.empty())
      note("{}: {}", m.device_info().id, report);
  };
  events.unloaded = [](const std::string& name) { note("{} unloaded", name); };
  return events;
}

int serve(const Flags& flags) {
  // Blocked here, so in every thread made from here on; one thread waits for them.
  sigset_t signals;
  sigemptyset(&signals);
  for (const int s : {SIGINT, SIGTERM, SIGHUP}) sigaddset(&signals, s);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);

  const ModelStore store = ModelStore::from_environment();
  ModelOptions options = flags.load.options();
  options.slots = flags.parallel;
  options.max_queue = flags.max_queue;
  const auto keep_alive =
      std::chrono::duration_cast<KeepAlive>(std::chrono::duration<double>(flags.keep_alive));
  ModelManager models([&store](std::string_view name) { return store.find(name).path; }, options,
                      model_events(), keep_alive);
  Server server(server_options(flags), models, store);
  note("listening on http://{}; Ctrl-C stops", server.address());
  std::thread waiter([&] {
    int signal = 0;
    sigwait(&signals, &signal);
    server.stop();
  });
  const auto end_waiter = [&] {  // which may still wait, when run() ended on an error of its own
    pthread_kill(waiter.native_handle(), SIGTERM);
    waiter.join();
  };
  try {
    server.run();
  } catch (...) {
    end_waiter();
    throw;
  }
  end_waiter();
  note("stopped");
  return 0;
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
  command->add_option("--port", flags->port, "port; 0 takes any free one (default: 11434)")
      ->check(CLI::Range(0, 65535));
  command->add_option("--parallel", flags->parallel, "conversations answered at once by a model")
      ->check(CLI::Range(1, 4096))
      ->capture_default_str();
  command->add_option("--max-queue", flags->max_queue, "requests that may wait; more get status 503")
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str();
  command
      ->add_option("--keep-alive", flags->keep_alive,
                   "seconds a model stays loaded after its last use; -1: always")
      ->check(CLI::Range(-1.0, 1e9))
      ->capture_default_str();
  command
      ->add_option("--origin", flags->origins,
                   "a web origin that browsers may call from; may be given several times")
      ->allow_extra_args(false);
  command->add_flag("--quiet", flags->quiet, "no line for each request");
  flags->load.add(*command);
  command->callback([&action, flags] { action = [flags] { return serve(*flags); }; });
}

}  // namespace steelyard
