// steelyard bench
#include <algorithm>
#include <chrono>
#include <cmath>
#include <memory>
#include <numeric>

#include "app/bench_case.h"
#include "app/bench_export.h"
#include "app/bench_runs.h"
#include "app/command_line.h"
#include "app/commands.h"
#include "app/common.h"
#include "app/direct.h"
#include "app/output.h"
#include "app/progress.h"
#include "base/dtype.h"
#include "base/error.h"
#include "base/units.h"
#include "decoder/decoder.h"
#include "device/ceilings.h"
#include "device/device.h"
#include "device/devices.h"
#include "engine/loaded_model.h"
#include "gguf/gguf.h"
#include "gguf/summary.h"
#include "model/config.h"
#include "observe/ceilings.h"
#include "program/cost.h"
#include "program/program.h"

namespace steelyard {
namespace {

struct Flags {
  std::string model, tests, against;
  std::uint32_t repeat = 5, batch = 0;
  bool json = false, csv = false, markdown = false;
  LoadFlags load;
  bool table() const { return !json && !csv && !markdown; }
};

struct Row {
  BenchCase what;
  std::string device;
  double tokens_per_second = 0;  // the median
  double slowest = 0, fastest = 0;
  double limit = 0;           // tokens/s; 0: unknown
  std::vector<double> rates;  // of every run, ascending
  double beat = 0;            // how many times too low the limit was, which is raised; 0: it wasn't

  double spread() const { return (fastest - slowest) / tokens_per_second; }
  // At most 1: a limit that was beaten isn't one.
  double achieved() const { return limit > 0 ? std::min(1.0, tokens_per_second / limit) : 0; }
};

// "CUDA0", "CPU,CUDA0+CUDA1".
std::string device_ids(const PreparedModel& model) {
  if (model.parts.empty()) return model.device->info().id;
  std::string text;
  for (const PlacedPart& part : model.parts)
    text += (text.empty() ? "" : part.forward.program.rank > 0 ? "+" : ",") + part.device->info().id;
  return text;
}

// Measures cases on one loaded model against their limits.
class Bench {
 public:
  Bench(DirectModel& model, std::vector<Ceilings>& ceilings)
      : model_(model), ceilings_(ceilings), runs_(model) {
    for (std::size_t i = 0; i < ceilings.size(); ++i)
      parts_.push_back({&model.decoder().program(i), &ceilings[i]});
  }

  Row run(const BenchCase& c, std::uint32_t repeat) {
    const std::vector<double> rates = runs_.rates(c, repeat);
    const std::size_t half = rates.size() / 2;
    const double median = rates.size() % 2 ? rates[half] : (rates[half - 1] + rates[half]) / 2;
    const StepLimit limit = case_limit(c);
    Row row{c, device_ids(model_.prepared()), median, rates.front(), rates.back()};
    row.rates = rates;
    if (limit.seconds() > 0) row.limit = c.tokens * c.streams / limit.seconds();
    if (row.limit > 0 && median > row.limit) {
      row.beat = median / row.limit;
      if (parts_.size() == 1) {
        raise_ceilings(ceilings_[0], limit, row.beat);
        keep_ceilings(ceilings_[0], model_.prepared().device->info());
      }
    }
    return row;
  }

 private:
  // The least time that the case's steps could take on this machine.
  StepLimit case_limit(const BenchCase& c) const {
    StepLimit sum;
    if (parts_.size() > 1) return {.read_seconds = seconds_in_parts(c)};
    for_each_step(c, c.streams, [&](const StepShape& shape) {
      const StepLimit limit = step_limit(model_.program(), shape, ceilings_[0]);
      sum.read_seconds += limit.read_seconds;
      sum.multiply_seconds += limit.multiply_seconds;
    });
    return sum;
  }

  // Over several devices. Streams go through stages in turn, and so do a prompt's chunks: each takes the
  // longest stage's time then.
  double seconds_in_parts(const BenchCase& c) const {
    const bool generates = c.kind == BenchCase::Kind::generate;
    const std::uint32_t turns = generates ? std::min(model_.stages(), c.streams) : 1;
    double all = 0, longest = 0;
    for_each_step(c, (c.streams + turns - 1) / turns, [&](const StepShape& shape) {
      const StageLimits limits = stage_limits(parts_, shape);
      all += generates ? std::max(limits.all, turns * limits.longest) : limits.longest;
      longest += limits.longest;
    });
    return longest > 0 ? all : 0;
  }

  // The steps of one run; `streams` of them together where they generate.
  template <typename Fn>
  void for_each_step(const BenchCase& c, std::uint32_t streams, Fn fn) const {
    if (c.kind == BenchCase::Kind::generate) {
      for (std::uint32_t t = 0; t < c.tokens; ++t) {
        const double context = c.depth + t + 1;
        fn(StepShape{
            .rows = streams, .outputs = streams, .context = context, .state_reads = context * streams});
      }
      return;
    }
    for (std::uint32_t s = 0; s < c.streams; ++s)
      for (std::uint32_t at = 0; at < c.tokens; at += model_.limits().rows) {
        const std::uint32_t n = std::min(model_.limits().rows, c.tokens - at);
        const double end = c.depth + at + n;
        fn(StepShape{.rows = n,
                     .outputs = at + n == c.tokens ? 1u : 0u,
                     .context = end - (n - 1) / 2.0,
                     .state_reads = end});
      }
  }

  DirectModel& model_;
  std::vector<Ceilings>& ceilings_;  // by part
  std::vector<LimitPart> parts_;
  BenchRuns runs_;
};

void print_header() {
  print("{:<14} {:<11} {:>11} {:>8} {:>14} {:>9}\n", "TEST", "DEVICE", "TOKENS/S", "SPREAD", "LIMIT TOKENS/S",
        "ACHIEVED");
}

// What makes a row doubtful.
std::string remark(const Row& r) {
  constexpr double kLargeSpread = 0.25;
  std::string text;
  if (r.beat > 1) text += fmt::format("  the limit was {:.0f} % too low and is raised", 100 * (r.beat - 1));
  if (r.spread() > kLargeSpread) text += "  large spread: is the machine busy?";
  return text;
}

BenchRow exported(const Row& r) { return {r.what, r.device, r.rates}; }

// What the exports say beside each row.
BenchSubject subject_of(const PreparedModel& m) {
  const DeviceInfo& d = m.device->info();
  const bool gpu = !m.device->target().is_host();
  std::uint64_t bytes = 0;
  for (const WeightSpec& w : m.forward.program.weights) bytes += w.file_bytes();
  return {.version = STEELYARD_VERSION,
          .file = m.path.filename().string(),
          .type = fmt::format("{} {}", m.config.architecture, quantization_name(*m.file)),
          .bytes = bytes,
          .parameters = parameter_count(*m.file),
          .cpu = gpu ? "" : d.name,
          .gpu = gpu ? d.name : "",
          .backend = gpu ? "CUDA" : "CPU",
          .batch = m.plan.limits.rows,
          .threads = m.plan.threads,
          .kv_type = std::string(dtype_info(m.plan.kv_type).name),
          .time = rfc3339(std::chrono::floor<std::chrono::seconds>(std::chrono::system_clock::now()))};
}

void print_export(const Flags& flags, const BenchSubject& subject, const Row& row, bool first) {
  if (flags.csv) write_stdout((first ? bench_csv_head() : "") + bench_csv(subject, exported(row)));
  if (flags.markdown)
    write_stdout((first ? bench_markdown_head() : "") + bench_markdown(subject, exported(row)));
}

void print_row(const Row& r, const std::string& change) {
  const std::string limit = r.limit > 0 ? fmt::format("{:.1f}", r.limit) : "–";
  const std::string achieved = r.limit > 0 ? fmt::format("{:.1f} %", 100 * r.achieved()) : "–";
  print("{:<14} {:<11} {:>11.1f} {:>6.1f} % {:>14} {:>9}{}\n", r.what.name(), r.device, r.tokens_per_second,
        100 * r.spread(), limit, achieved, change + remark(r));
}

nlohmann::ordered_json to_json(const Row& r) {
  return {
      {"test", r.what.name()},
      {"device", r.device},
      {"tokens_per_second", r.tokens_per_second},
      {"slowest", r.slowest},
      {"fastest", r.fastest},
      {"spread", r.spread()},
      {"limit", r.limit > 0 ? nlohmann::ordered_json(r.limit) : nlohmann::ordered_json()},
      {"achieved_over_limit", r.limit > 0 ? nlohmann::ordered_json(r.achieved()) : nlohmann::ordered_json()},
      {"limit_raised", r.beat > 1}};
}

nlohmann::ordered_json to_json(const DeviceInfo& d) {
  nlohmann::ordered_json value = {{"device", d.id}, {"name", d.name}, {"kernels", d.kernels}};
  if (d.threads) value["threads"] = d.threads;
  return value;
}

// Cases that one load can serve: single streams share one, many streams another, so that the long contexts of
// the former aren't paid for by the latter's every slot.
std::vector<std::vector<BenchCase>> group_by_load(const std::vector<BenchCase>& cases) {
  std::vector<std::vector<BenchCase>> groups(2);
  for (const BenchCase& c : cases) groups[c.streams > 1].push_back(c);
  std::erase_if(groups, [](const auto& g) { return g.empty(); });
  return groups;
}

ModelOptions options_for(const std::vector<BenchCase>& cases, const Flags& flags) {
  ModelOptions options = flags.load.options();
  options.batch = flags.batch;
  options.reuse_prefixes = false;
  std::uint32_t context = 256;
  for (const BenchCase& c : cases) {
    context = std::max(context, c.context());
    options.slots = std::max(options.slots, c.streams);
  }
  if (options.context && options.context < context)
    throw_usage("the tests need {} tokens of context: leave --context out or choose other --tests", context);
  if (!options.context) options.context = context;
  return options;
}

bool may_use_gpu(const std::string& device) {
  const DeviceName name = parse_device(device);
  if (name.kind == DeviceName::Kind::automatic) return find_cuda_devices().count > 0;
  return name.kind == DeviceName::Kind::cuda;
}

// Tests that go beyond what the model was trained for are left out, and said.
std::vector<BenchCase> choose_cases(const Flags& flags, const std::filesystem::path& path) {
  auto cases = flags.tests.empty() ? default_bench_cases(may_use_gpu(flags.load.device))
                                   : parse_bench_cases(flags.tests);
  const std::uint32_t trained = read_config(GgufFile::open(path)).context_train;
  std::erase_if(cases, [&](const BenchCase& c) {
    const bool skip = trained && c.context() > trained;
    if (skip) note("{} is left out: the model was trained for {} tokens", c.name(), trained);
    return skip;
  });
  if (cases.empty()) throw_error(ErrorKind::bad_input, "no test is left");
  return cases;
}

// Each device's limits, measured where they aren't known.
std::vector<Ceilings> part_ceilings(const PreparedModel& model) {
  if (model.parts.empty()) return {device_ceilings(*model.device)};
  std::vector<Ceilings> all;
  for (const PlacedPart& part : model.parts) all.push_back(device_ceilings(*part.device));
  return all;
}

void print_table_head(const PreparedModel& model, const Ceilings& ceilings) {
  print("{}; {}, {} mode; limits {}\n\n", devices_text(model), model.path.filename().string(),
        mode_name(model.plan.mode), measured_text(ceilings, machine_cores()));
  print_header();
}

int bench(const Flags& flags) {
  if (flags.json + flags.csv + flags.markdown > 1)
    throw_usage("--json, --csv and --markdown are three forms: give one of them");
  const auto path = resolve_model(flags.model);
  const auto cases = choose_cases(flags, path);
  nlohmann::ordered_json rows = nlohmann::ordered_json::array();
  nlohmann::ordered_json machines = nlohmann::ordered_json::array();
  std::vector<BenchBefore> before;
  if (!flags.against.empty()) before = read_bench(read_input(flags.against), flags.against);
  std::string last_device;
  Devices devices;
  std::size_t number = 0;
  StatusLine status;
  note("{} test{}, each run {} times", cases.size(), cases.size() == 1 ? "" : "s", flags.repeat + 1);
  for (const auto& group : group_by_load(cases)) {
    PreparedModel prepared = prepare_model(path, options_for(group, flags), devices);
    note_device(prepared, true);
    const std::string where = device_ids(prepared);
    std::vector<Ceilings> ceilings = part_ceilings(prepared);
    DirectModel model(std::move(prepared), !flags.table());
    const BenchSubject subject = subject_of(model.prepared());
    if (where != last_device) {
      for (const PlacedPart& part : placed_parts(model.prepared()))
        machines.push_back(to_json(part.device->info()));
      if (flags.table()) {
        if (!last_device.empty()) print("\n");
        print_table_head(model.prepared(), ceilings[0]);
      }
      last_device = where;
    }
    Bench bench(model, ceilings);
    for (const BenchCase& c : group) {
      status.show(fmt::format("test {} of {}: {} …", ++number, cases.size(), c.name()));
      const Row row = bench.run(c, flags.repeat);
      status.wipe();
      const auto change = change_since(before, exported(row));
      rows.push_back(to_json(row));
      if (!before.empty()) rows.back()["against"] = change_json(change);
      if (flags.table()) print_row(row, before.empty() ? "" : change_text(change));
      print_export(flags, subject, row, rows.size() == 1);
    }
  }
  if (flags.json)
    print_json({{"results", std::move(rows)},
                {"devices", std::move(machines)},
                {"model", path.filename().string()},
                {"mode", flags.load.mode},
                {"repeat", flags.repeat}});
  return 0;
}

}  // namespace

void add_bench(CLI::App& app, Action& action) {
  auto* command =
      add_command(app, "bench",
                  "measure prompt and generation speed, against the device's measured limits\n"
                  "Tests: pp512 reads a prompt of 512 tokens, tg128 generates 128; @2048 does it with 2048 "
                  "tokens in the\n"
                  "conversation already, x8 for eight streams at once (tokens/s are of all together). A row "
                  "is the median\n"
                  "of --repeat runs after one to warm up; the spread is (fastest - slowest) / median.",
                  "  steelyard bench smollm2\n"
                  "  steelyard bench smollm2 --tests pp512,tg128,tg128@2048,tg128x8 --repeat 9\n"
                  "  steelyard bench llama-1b.gguf --threads 2 --json > bench.json\n"
                  "  steelyard bench llama-1b.gguf --threads 2 --against bench.json\n"
                  "  steelyard bench smollm2 --tests pp512,tg128 --markdown");
  auto flags = std::make_shared<Flags>();
  add_model_argument(*command, flags->model);
  takes(command->add_option("--tests", flags->tests, "the tests, separated by commas"), "TESTS",
        [](const std::string& text) { parse_bench_cases(text); });
  takes_number(command->add_option("-r,--repeat,--repetitions", flags->repeat, "timed runs of each test"), 1,
               1000)
      ->capture_default_str();
  takes_number(command->add_option("-b,--batch,--batch-size", flags->batch,
                                   "tokens a step at most (default: 512, on a GPU 2048)"),
               1, 8192);
  command->add_flag("--json", flags->json, "print JSON");
  command->add_flag("--csv", flags->csv, "print CSV, in the columns of llama-bench");
  command->add_flag("--markdown", flags->markdown, "print a Markdown table, in the columns of llama-bench");
  takes(command->add_option("--against", flags->against, "compare with what `bench --json` printed before"),
        "FILE", [](const std::string& text) {
          if (text.empty()) throw_usage("--against takes a file's name");
        });
  flags->load.add_with_devices(*command);
  command->callback([&action, flags] { action = [flags] { return bench(*flags); }; });
}

}  // namespace steelyard
