# --- errands: scripts that the host carries out by itself, as SYSTEM, after the remote shell has gone; part of several ---

# Closed to all but SYSTEM and administrators: what lies in it holds the mover's token, and is run. Anybody may make folders
# in ProgramData, so one that was there before is taken over, or refused if it leads elsewhere.
function New-ClosedFolder($path) {
    $rights = New-Object System.Security.AccessControl.DirectorySecurity
    $rights.SetAccessRuleProtection($true, $false)
    foreach ($who in @('S-1-5-18', 'S-1-5-32-544')) {
        $sid = [Security.Principal.SecurityIdentifier]$who
        $rule = New-Object System.Security.AccessControl.FileSystemAccessRule($sid, 'FullControl', 'ContainerInherit, ObjectInherit', 'None', 'Allow')
        $rights.AddAccessRule($rule)
    }
    $rights.SetOwner([Security.Principal.SecurityIdentifier]'S-1-5-32-544')
    $null = [IO.Directory]::CreateDirectory($path, $rights)
    $leads = [IO.File]::GetAttributes($path) -band [IO.FileAttributes]::ReparsePoint
    if ([int]$leads -ne 0) { throw 'Deskyard.FolderLeadsElsewhere' }
    [IO.Directory]::SetAccessControl($path, $rights)
}

function Get-DataFolder { [IO.Path]::Combine([Environment]::GetFolderPath('CommonApplicationData'), 'Deskyard') }

# ProgramData\Deskyard\errands\<installation's tag>\<whose>\<name>.
function Get-ErrandFolder($whose, $name) {
    $folder = [IO.Path]::Combine((Get-DataFolder), 'errands', [string]$p.owner)
    [IO.Path]::Combine($folder, [string]$whose, [string]$name)
}

# With all that it lies in: who may write above it could put another folder in its place.
function New-ErrandFolder($whose, $name) {
    $folder = Get-ErrandFolder $whose $name
    $above = @()
    $at = $folder
    while ($at -ne (Get-DataFolder)) {
        $above = @($at) + $above
        $at = [IO.Path]::GetDirectoryName($at)
    }
    New-ClosedFolder $at
    foreach ($one in $above) { New-ClosedFolder $one }
    $folder
}

function Start-Errand($whose, $name, $errand) {
    Stop-Errand $whose $name
    $folder = New-ErrandFolder $whose $name
    $text = ConvertTo-Json -InputObject $errand -Depth 8 -Compress
    [IO.File]::WriteAllText([IO.Path]::Combine($folder, 'errand.json'), $text)
    $action = New-ScheduledTaskAction -Execute 'powershell.exe' -Argument $p.task_command -WorkingDirectory $folder
    $who = New-ScheduledTaskPrincipal -UserId 'SYSTEM' -LogonType ServiceAccount -RunLevel Highest
    $task = 'deskyard-' + [string]$name
    $null = Register-ScheduledTask -TaskName $task -TaskPath $taskPath -Action $action -Principal $who -Force
    Start-ScheduledTask -TaskName $task -TaskPath $taskPath
}

# Ends it if it runs, and leaves nothing of it.
function Stop-Errand($whose, $name) {
    $task = 'deskyard-' + [string]$name
    $found = Get-ScheduledTask -TaskName $task -TaskPath $taskPath -ErrorAction SilentlyContinue
    if ($null -ne $found) {
        Stop-ScheduledTask -TaskName $task -TaskPath $taskPath
        Unregister-ScheduledTask -TaskName $task -TaskPath $taskPath -Confirm:$false
    }
    $folder = Get-ErrandFolder $whose $name
    if (Test-Path -LiteralPath $folder) { Remove-Item -LiteralPath $folder -Recurse -Force }
}

function Find-Errands($whose) {
    $folder = [IO.Path]::GetDirectoryName((Get-ErrandFolder $whose 'any'))
    if (-not (Test-Path -LiteralPath $folder)) { return }
    foreach ($found in @(Get-ChildItem -LiteralPath $folder -Directory)) { [string]$found.Name }
}

# running, ended, or failed and of what.
function Read-Errand($whose, $name) {
    $failed = [IO.Path]::Combine((Get-ErrandFolder $whose $name), 'failed.json')
    if (Test-Path -LiteralPath $failed) {
        return @{ state = 'failed'; fault = (ConvertFrom-Json -InputObject ([IO.File]::ReadAllText($failed))) }
    }
    $task = Get-ScheduledTask -TaskName ('deskyard-' + [string]$name) -TaskPath $taskPath -ErrorAction SilentlyContinue
    if (($null -ne $task) -and (@('Running', 'Queued') -contains [string]$task.State)) { return @{ state = 'running' } }
    @{ state = 'ended' }
}
