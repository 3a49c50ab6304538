// One function per command: it adds the command's flags and help to the parser and, when the command is the
// one chosen, sets `action`, which main() calls and whose result is the exit code.
#pragma once

#include <CLI/App.hpp>
#include <functional>

namespace steelyard {

using Action = std::function<int()>;

void add_run(CLI::App& app, Action& action);
void add_serve(CLI::App& app, Action& action);
void add_list(CLI::App& app, Action& action);
void add_show(CLI::App& app, Action& action);
void add_plan(CLI::App& app, Action& action);
void add_bench(CLI::App& app, Action& action);
void add_top(CLI::App& app, Action& action);
void add_doctor(CLI::App& app, Action& action);
void add_probe(CLI::App& app, Action& action);
void add_eval(CLI::App& app, Action& action);
void add_tokenize(CLI::App& app, Action& action);
void add_render(CLI::App& app, Action& action);
void add_quantize(CLI::App& app, Action& action);
void add_synth(CLI::App& app, Action& action);
void add_key(CLI::App& app, Action& action);
void add_rm(CLI::App& app, Action& action);
void add_pull(CLI::App& app, Action& action);
void add_create(CLI::App& app, Action& action);
void add_cp(CLI::App& app, Action& action);
void add_ps(CLI::App& app, Action& action);
void add_stop(CLI::App& app, Action& action);

}  // namespace steelyard
