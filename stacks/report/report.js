// Draws the charts of a run's report from the data in the page. Times on all axes are seconds since the run's start.
(function () {
  "use strict";
  var data = JSON.parse(document.getElementById("data").textContent);
  var charts = [];
  var PRINT_WIDTH = 720;

  function palette() {
    var style = getComputedStyle(document.documentElement);
    var colours = {};
    ["page", "ink", "soft", "line", "panel", "accent", "boot", "idle", "bad"].forEach(function (name) {
      colours[name] = style.getPropertyValue("--" + name).trim();
    });
    return colours;
  }

  function pad(number) {
    return String(number).padStart(2, "0");
  }

  function elapsed(seconds) {
    var whole = Math.round(seconds);
    var hours = Math.floor(whole / 3600);
    var minutes = Math.floor((whole % 3600) / 60);
    return hours ? hours + ":" + pad(minutes) + ":" + pad(whole % 60) : minutes + ":" + pad(whole % 60);
  }

  function axisTime(seconds) {
    return data.span >= 7200 ? elapsed(seconds).replace(/:\d\d$/, "").replace(/:00$/, "") + " h" : elapsed(seconds);
  }

  function duration(seconds) {
    if (seconds >= 90) return (seconds / 60).toPrecision(3) * 1 + " min";
    return seconds >= 1 ? seconds.toPrecision(3) * 1 + " s" : (seconds * 1000).toPrecision(3) * 1 + " ms";
  }

  function figure(value) {
    if (value === null || value === undefined) return "–";
    if (value >= 1000) return Math.round(value).toLocaleString("en-US");
    return String(Number(Number(value).toPrecision(3)));
  }

  // One unit for all of an axis, by its largest value.
  function shortUpTo(largest) {
    var unit = largest >= 1e7 ? 1e6 : largest >= 1e4 ? 1e3 : 1;
    var name = { 1: "", 1000: " k", 1000000: " M" }[unit];
    return function (value) { return value ? (value / unit).toLocaleString("en-US") + name : "0"; };
  }

  function most(values) {
    return values.reduce(function (found, each) { return Math.max(found, each || 0); }, 0);
  }

  // Steps that read well on a clock, about one for each 90 pixels.
  function timeStep(width) {
    var steps = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 21600, 43200, 86400];
    var wanted = data.span / Math.max(2, width / 90);
    for (var i = 0; i < steps.length; i++) if (steps[i] >= wanted) return steps[i];
    return Math.ceil(wanted / 86400) * 86400;
  }

  // From the accent to the page's colour: machines differ in shade, not in hue.
  function shade(colours, place, count) {
    var share = count < 2 ? 0 : (0.68 * place) / (count - 1);
    var from = echarts.color.parse(colours.accent);
    var to = echarts.color.parse(colours.page);
    var mixed = [0, 1, 2].map(function (i) { return Math.round(from[i] + (to[i] - from[i]) * share); });
    return "rgb(" + mixed.join(",") + ")";
  }

  function timeAxis(colours, width) {
    return {
      type: "value", min: 0, max: data.span, interval: timeStep(width),
      axisLabel: { color: colours.soft, formatter: axisTime, showMaxLabel: false, hideOverlap: true, fontSize: 11 },
      axisLine: { show: true, lineStyle: { color: colours.line } }, axisTick: { show: false },
      splitLine: { lineStyle: { color: colours.line } }
    };
  }

  function valueAxis(colours, format) {
    return {
      type: "value", min: 0, splitNumber: 4,
      axisLabel: { color: colours.soft, formatter: format, fontSize: 11 },
      axisLine: { show: false }, axisTick: { show: false }, splitLine: { lineStyle: { color: colours.line } }
    };
  }

  function tooltip(colours, rest) {
    var base = {
      confine: true, backgroundColor: colours.page, borderColor: colours.line, padding: [6, 10],
      textStyle: { color: colours.ink, fontSize: 12 }, extraCssText: "box-shadow:none;border-radius:3px"
    };
    return Object.assign(base, rest);
  }

  function frame(colours, extra) {
    return Object.assign({
      animation: false, textStyle: { fontFamily: getComputedStyle(document.body).fontFamily, color: colours.ink },
      grid: { left: 58, right: 14, top: 14, bottom: 24 }
    }, extra);
  }

  function line(name, value) {
    return '<div style="display:flex;justify-content:space-between;gap:16px"><span>' +
      echarts.format.encodeHTML(name) + "</span><b>" + echarts.format.encodeHTML(value) + "</b></div>";
  }

  function drawTimeline(colours, width) {
    var names = ["boot", "work", "idle", "lost"];
    var fills = { boot: colours.boot, work: colours.accent, idle: colours.idle, lost: colours.bad };
    var rows = data.timeline;
    var series = [{
      name: "before", type: "bar", stack: "all", silent: true, itemStyle: { color: "transparent" },
      data: rows.map(function (row) { return row.start; })
    }];
    names.forEach(function (name) {
      series.push({
        name: name, type: "bar", stack: "all", barCategoryGap: rows.length > 40 ? "12%" : "34%", barMaxWidth: 22,
        itemStyle: { color: fills[name] }, data: rows.map(function (row) { return row[name] || null; })
      });
    });
    return frame(colours, {
      tooltip: tooltip(colours, {
        trigger: "axis", axisPointer: { type: "none" },
        formatter: function (found) {
          var row = rows[found[0].dataIndex];
          var lines = names.filter(function (name) { return row[name]; }).map(function (name) {
            return line(name, elapsed(row[name]));
          });
          return "<b>machine " + echarts.format.encodeHTML(row.label) + "</b>" + lines.join("") + line("USD", row.usd);
        }
      }),
      xAxis: timeAxis(colours, width),
      yAxis: {
        type: "category", inverse: true, data: rows.map(function (row) { return row.label; }),
        axisLabel: { color: colours.soft, fontSize: 11 }, axisLine: { show: false }, axisTick: { show: false }
      },
      series: series
    });
  }

  // Each value holds from one edge to the next.
  function steps(values, holes) {
    var points = values.map(function (value, i) { return [data.edges[i], value === null && !holes ? 0 : value]; });
    if (values.length) points.push([data.edges[values.length], points[values.length - 1][1]]);
    return points;
  }

  function axisTooltip(colours, format) {
    return tooltip(colours, {
      trigger: "axis", axisPointer: { lineStyle: { color: colours.soft } },
      formatter: function (found) {
        var total = 0;
        var lines = found.map(function (each) {
          total += each.value[1] || 0;
          return line(each.seriesName, format(each.value[1]));
        });
        if (found.length > 1 && format === figure) lines.push(line("together", figure(total)));
        return elapsed(found[0].value[0]) + lines.join("");
      }
    });
  }

  function drawRates(key) {
    return function (colours, width) {
      var machines = data.machines;
      var many = machines.length > data.most_stacked;
      var shown = many ? [{ label: "all machines", values: sum(machines, key) }] : machines.map(function (each) {
        return { label: "machine " + each.label, values: each[key] };
      });
      return frame(colours, {
        tooltip: axisTooltip(colours, figure), xAxis: timeAxis(colours, width),
        yAxis: valueAxis(colours, shortUpTo(most(sum(machines, key)))),
        legend: many || shown.length < 2 ? { show: false } : {
          top: 0, right: 14, icon: "rect", itemWidth: 12, itemHeight: 12, itemGap: 14, type: "scroll",
          textStyle: { color: colours.soft, fontSize: 12 }, pageTextStyle: { color: colours.soft },
          pageIconColor: colours.accent, left: 58,
          formatter: function (name) { return width < 500 ? name.replace(/^machine /, "") : name; }
        },
        grid: { left: 58, right: 14, top: many || shown.length < 2 ? 14 : 34, bottom: 24 },
        series: shown.map(function (each, i) {
          var colour = shade(colours, i, shown.length);
          return {
            name: each.label, type: "line", step: "end", stack: "all", symbol: "none", data: steps(each.values, false),
            lineStyle: { width: 1, color: colours.page }, itemStyle: { color: colour },
            areaStyle: { color: colour, opacity: 1 }, emphasis: { disabled: true }
          };
        })
      });
    };
  }

  function sum(machines, key) {
    return machines[0][key].map(function (_, i) {
      return machines.reduce(function (total, each) { return total + (each[key][i] || 0); }, 0);
    });
  }

  function median(machines, key) {
    return machines[0][key].map(function (_, i) {
      var values = machines.map(function (each) { return each[key][i]; });
      values = values.filter(function (value) { return value !== null; }).sort(function (a, b) { return a - b; });
      return values.length ? values[Math.floor(values.length / 2)] : null;
    });
  }

  function drawEach(key) {
    return function (colours, width) {
      var series = data.machines.map(function (each) {
        return {
          name: "machine " + each.label, type: "line", symbol: "none", data: steps(each[key], true),
          lineStyle: { width: 1, color: colours.accent, opacity: 0.28 }, itemStyle: { color: colours.accent },
          emphasis: { lineStyle: { width: 2, opacity: 1 } }, triggerLineEvent: true
        };
      });
      series.push({
        name: "median", type: "line", symbol: "none", silent: true, data: steps(median(data.machines, key), true),
        lineStyle: { width: 2.5, color: colours.ink }, itemStyle: { color: colours.ink }
      });
      return frame(colours, {
        tooltip: tooltip(colours, {
          trigger: "item", formatter: function (found) { return echarts.format.encodeHTML(found.seriesName); }
        }),
        xAxis: timeAxis(colours, width), series: series,
        yAxis: valueAxis(colours, shortUpTo(most(data.machines.map(function (each) { return most(each[key]); }))))
      });
    };
  }

  function drawPercentiles(colours, width) {
    var kinds = [["p99", "99 %", colours.soft, 1.25], ["p90", "90 %", shade(colours, 1, 3), 1.75], ["p50", "50 %", colours.accent, 2.5]];
    return frame(colours, {
      tooltip: axisTooltip(colours, function (value) { return value === null ? "–" : duration(value); }),
      legend: { top: 0, left: 58, icon: "rect", itemWidth: 12, itemHeight: 3, itemGap: 14, textStyle: { color: colours.soft, fontSize: 12 } },
      grid: { left: 58, right: 14, top: 34, bottom: 24 },
      xAxis: timeAxis(colours, width), yAxis: valueAxis(colours, function (value) { return value ? duration(value) : "0"; }),
      series: kinds.map(function (kind) {
        return {
          name: kind[1], type: "line", step: "end", symbol: "none", data: steps(data.durations[kind[0]], true),
          lineStyle: { width: kind[3], color: kind[2] }, itemStyle: { color: kind[2] }
        };
      })
    });
  }

  // Bars are equally wide, as their spans are on a scale of powers; counted in bars from the left.
  function barPlace(seconds) {
    var bars = data.bars;
    var i = bars.findIndex(function (bar) { return seconds <= bar[1]; });
    if (i < 0) return bars.length;
    return i + Math.max(0, Math.log(seconds / bars[i][0]) / Math.log(bars[i][1] / bars[i][0]));
  }

  // Times that read well, evenly far apart: the finest of three scales for which there is room; of a narrow span both ends.
  function durationTicks(width) {
    var low = data.bars[0][0], high = data.bars[data.bars.length - 1][1];
    var least = (50 * data.bars.length) / Math.max(1, width - 80);
    var scales = [[1, 2, 5], [1, 3], [1]].map(function (scale) {
      var ticks = [];
      [1e-4, 1e-3, 0.01, 0.1, 1, 10, 60, 600, 6000, 60000].forEach(function (unit) {
        scale.forEach(function (factor) { if (unit !== 10 || factor < 5) ticks.push(unit * factor); });
      });
      return ticks.filter(function (each) { return each >= low && each <= high; });
    });
    var ticks = scales.find(function (found) {
      return found.every(function (each, i) { return !i || barPlace(each) - barPlace(found[i - 1]) >= least; });
    }) || scales[2];
    return ticks.length > 1 ? ticks : [low, high];
  }

  function drawDurations(colours, width) {
    var bars = data.bars;
    var ticks = durationTicks(width);
    var places = ticks.map(barPlace);
    var marks = [["50 %", data.overall.p50, "right"], ["90 %", data.overall.p90, "center"], ["99 %", data.overall.p99, "left"]];
    return frame(colours, {
      tooltip: tooltip(colours, {
        trigger: "axis", axisPointer: { type: "line", lineStyle: { opacity: 0 } },
        formatter: function (found) {
          var bar = bars[found[0].dataIndex];
          return line(duration(bar[0]) + " to " + duration(bar[1]), (data.is_counted ? "" : "about ") + figure(bar[2]));
        }
      }),
      grid: { left: 58, right: 22, top: 34, bottom: 24 },
      xAxis: {
        type: "value", min: 0, max: bars.length, containShape: false, splitLine: { show: false },
        axisLabel: {
          color: colours.soft, fontSize: 11, hideOverlap: true, customValues: places,
          formatter: function (place) {
            return duration(ticks[places.findIndex(function (each) { return Math.abs(each - place) < 1e-6; })]);
          }
        },
        axisTick: { show: true, customValues: places, lineStyle: { color: colours.soft } },
        axisLine: { show: true, lineStyle: { color: colours.line } }
      },
      yAxis: valueAxis(colours, shortUpTo(most(bars.map(function (bar) { return bar[2]; })))),
      series: [{
        type: "bar", barWidth: "92%", itemStyle: { color: colours.accent },
        data: bars.map(function (bar, i) { return [i + 0.5, bar[2]]; }),
        markLine: {
          symbol: "none", silent: true, lineStyle: { color: colours.soft, type: "dashed", width: 1 },
          data: marks.map(function (each) {
            return {
              name: each[0], xAxis: barPlace(each[1]),
              label: { formatter: each[0], align: each[2], color: colours.soft, fontSize: 11, distance: 4 }
            };
          })
        }
      }]
    });
  }

  var DRAWN = {
    timeline: drawTimeline, requests: drawRates("requests"), tokens: drawRates("tokens"),
    "requests-each": drawEach("requests"), "tokens-each": drawEach("tokens"),
    durations: drawDurations, percentiles: drawPercentiles
  };

  function prepare() {
    var timeline = document.getElementById("timeline");
    if (timeline) {
      var rows = data.timeline.length;
      timeline.style.height = 34 + rows * (rows > 40 ? 14 : rows > 12 ? 20 : 30) + "px";
    }
    Object.keys(DRAWN).forEach(function (id) {
      var place = document.getElementById(id);
      if (place) charts.push({ id: id, place: place, chart: echarts.init(place, null, { renderer: "svg" }) });
    });
  }

  function draw() {
    var colours = palette();
    charts.forEach(function (each) {
      each.chart.setOption(DRAWN[each.id](colours, each.chart.getWidth()), true);
    });
  }

  function resize() {
    charts.forEach(function (each) { each.chart.resize(); });
    draw();
  }

  function beforePrint() {
    document.documentElement.classList.add("print");
    charts.forEach(function (each) {
      var width = each.place.closest(".pair") ? PRINT_WIDTH / 2 - 14 : PRINT_WIDTH;
      each.chart.resize({ width: width, height: each.place.clientHeight || 210 });
    });
    draw();
    charts.forEach(function (each) {
      var svg = each.place.querySelector("svg");
      if (svg) svg.setAttribute("viewBox", "0 0 " + each.chart.getWidth() + " " + each.chart.getHeight());
    });
  }

  function afterPrint() {
    document.documentElement.classList.remove("print");
    charts.forEach(function (each) {
      var svg = each.place.querySelector("svg");
      if (svg) svg.removeAttribute("viewBox");
      each.chart.resize({ width: "auto", height: "auto" });
    });
    draw();
  }

  prepare();
  draw();
  var waiting = 0;
  window.addEventListener("resize", function () {
    clearTimeout(waiting);
    waiting = setTimeout(resize, 120);
  });
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  window.addEventListener("beforeprint", beforePrint);
  window.addEventListener("afterprint", afterPrint);
  document.documentElement.dataset.drawn = String(charts.length);
})();
